"""Damaged JSON of runs and exports: loaded or refused by name, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, contents
from damage import assert_named, attempt, cases
from json_damage import TREES

from advprop.config import RunConfig
from advprop.exports.export import load_export
from advprop.runs import train
from advprop.runs.folder import load_run


def refused_or(call: Callable[[], Any], folder: Path, path: Path) -> Any:
    """What `call` returns; where it refuses, the message names `path`. Nothing is changed."""
    before = contents(folder.parent)
    outcome = attempt(call)
    assert contents(folder.parent) == before
    if outcome.message is not None:
        assert_named(outcome.message, path)
    return outcome.result


@pytest.mark.parametrize("change", cases(TREES, quick=25))
@pytest.mark.parametrize("name", ["config.json", "data.json", "result.json"])
def test_a_run_with_damaged_json_is_loaded_or_refused(name: str, change: str, run: Path) -> None:
    path = run / name
    path.write_bytes(TREES[change](path.read_bytes()))
    refused_or(lambda: load_run(run), run, path)


@pytest.mark.parametrize("change", cases(TREES, quick=25))
def test_an_export_with_damaged_json_is_loaded_or_refused(change: str, exported: Path) -> None:
    path = exported / "config.json"
    path.write_bytes(TREES[change](path.read_bytes()))
    loaded = refused_or(lambda: load_export(exported), exported, path)
    assert loaded is None or all(isinstance(name, str) for name in loaded.class_names)


@pytest.mark.parametrize("change", cases(TREES, quick=8))
@pytest.mark.parametrize("name", ["config.json", "data.json", "result.json"])
def test_a_damaged_run_is_not_trained_over(
    name: str, change: str, run: Path, config: RunConfig
) -> None:
    path = run / name
    path.write_bytes(TREES[change](path.read_bytes()))
    if name == "data.json":  # of a finished run it is not looked at
        (run / "result.json").unlink()
    before = contents(run)
    outcome = attempt(lambda: train(config, run, resume=True, quiet=True))
    if outcome.message is not None:
        assert_named(outcome.message, path)
        assert contents(run) == before
    else:
        assert outcome.result["epochs"] == 2


@pytest.mark.parametrize("change", cases(["cut 3", "null", "deep", "not UTF-8"], quick=2))
@pytest.mark.parametrize("name", ["config.json", "data.json", "result.json"])
@pytest.mark.parametrize("command", ["evaluate", "export", "report", "train"])
def test_the_command_line_has_one_line_for_it(
    command: str, name: str, change: str, run: Path, cli: Cli
) -> None:
    path = run / name
    original = path.read_bytes()
    path.write_bytes(TREES[change](original))
    before = contents(run.parent)
    out = run.parent / "out"
    arguments: dict[str, list[object]] = {
        "evaluate": ["evaluate", run, "--suite", "clean"],
        "export": ["export", run, "--out", out],
        "report": ["report", run],
        "train": ["train", run / "config.json", "--out", run, "--resume", "--quiet"],
    }
    ended = cli(*arguments[command])
    if command == "train" and name == "data.json":
        assert ended.code == 0  # the run is finished, nothing is looked at
        return
    assert ended.code == 2, ended
    assert name in ended.err
    assert len(ended.err.splitlines()) == 1 or "not a run's configuration" in ended.err
    assert contents(run.parent) == before
