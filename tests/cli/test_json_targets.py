"""`--json FILE` is looked at before the work begins, and replaces nothing but such results."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from command_line import QUICK, Cli, contents
from PIL import Image

import advprop.cost.planning
import advprop.exports.prediction
import advprop.suites


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from advprop.config.overrides import apply_overrides
    from advprop.recipes.builtin import digits
    from advprop.runs import train

    folder = tmp_path_factory.mktemp("scene")
    train(apply_overrides(digits(), list(QUICK[1:4:2])), folder / "run", quiet=True)
    Image.new("L", (8, 8)).save(folder / "digit.png")
    return folder


def arguments(command: str, scene: Path) -> list[object]:
    return {
        "plan": ["plan", "digits"],
        "evaluate": ["evaluate", scene / "run", "--suite", "clean"],
        "predict": ["predict", scene / "run", scene / "digit.png"],
    }[command]


COMMANDS = ("plan", "evaluate", "predict")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("run/config.json", "not such a result"),
        ("run/metrics.jsonl", "not such a result"),
        ("digit.png", "not such a result"),
        ("run", "a folder"),
        ("none/found.json", "no such folder"),
        ("/proc/found.json", "cannot be written"),
    ],
)
def test_a_wrong_target_is_told_before_the_work(
    command: str,
    target: str,
    message: str,
    cli: Cli,
    scene: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work(*_: object, **__: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr(advprop.cost.planning, "plan", work)
    monkeypatch.setattr(advprop.suites, "evaluate", work)
    monkeypatch.setattr(advprop.exports.prediction, "predictions", work)
    before = contents(scene)
    ended = cli(*arguments(command, scene), "--json", scene / target)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("advprop: ")
    assert message in ended.err
    assert "--json" in ended.err
    assert ended.err.count("\n") == 1
    assert contents(scene) == before


@pytest.mark.parametrize("command", COMMANDS)
def test_a_result_may_be_written_again(command: str, cli: Cli, scene: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    file.touch()  # as mktemp leaves it
    for _ in range(2):
        assert cli(*arguments(command, scene), "--json", file).code == 0
    assert json.loads(file.read_text())
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_pipe_may_be_named(command: str, cli: Cli, scene: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert cli(*arguments(command, scene), "--json", pipe).code == 0
        assert json.loads(os.read(end, 1 << 20))
    finally:
        os.close(end)
    assert pipe.is_fifo()
