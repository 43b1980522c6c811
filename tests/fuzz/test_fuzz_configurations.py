"""Damaged JSON of runs and exports, recipes and `--set`: one message, and nothing is lost."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, contents
from damage import OTHER_FILES, Change, assert_named, attempt, bit_flipped, bytes_replaced, cut

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.exporting import load_export
from advprop.run_folder import load_run
from advprop.runs import train

# what may stand where something else is expected
VALUES = (None, True, -1, 0, 0.5, 10**30, 1e30, "x", "", [], [1], [[]], {}, {"x": 1}, "\ud800\0")
BYTES: dict[str, Change] = {
    **OTHER_FILES,
    **{f"cut {i}": cut(i, 8) for i in range(1, 8)},
    **{f"bit {i}": bit_flipped(i) for i in range(12)},
    **{f"bytes {i}": bytes_replaced(i, 3) for i in range(6)},
}


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a tree of JSON."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for name, value in items:
        found.append((*path, name))
        if isinstance(value, dict | list):
            found += places(value, (*path, name))
    return found


def other_value(number: int) -> Change:
    """Another value somewhere in the tree, or none."""

    def change(content: bytes) -> bytes:
        generator = random.Random(number)
        tree = json.loads(content)
        *parents, last = generator.choice(places(tree))
        node = tree
        for name in parents:
            node = node[name]
        if generator.random() < 0.2:
            del node[last]
        else:
            node[last] = generator.choice(VALUES)
        return json.dumps(tree).encode()

    return change


TREES = {**BYTES, **{f"value {i}": other_value(i) for i in range(40)}}


def refused_or(call: Callable[[], Any], folder: Path, path: Path) -> Any:
    """What `call` returns; where it refuses, the message names `path`. Nothing is changed."""
    before = contents(folder.parent)
    outcome = attempt(call)
    assert contents(folder.parent) == before
    if outcome.message is not None:
        assert_named(outcome.message, path)
    return outcome.result


@pytest.mark.parametrize("change", TREES)
@pytest.mark.parametrize("name", ["config.json", "data.json", "result.json"])
def test_a_run_with_damaged_json_is_loaded_or_refused(name: str, change: str, run: Path) -> None:
    path = run / name
    path.write_bytes(TREES[change](path.read_bytes()))
    refused_or(lambda: load_run(run), run, path)


@pytest.mark.parametrize("change", TREES)
def test_an_export_with_damaged_json_is_loaded_or_refused(change: str, exported: Path) -> None:
    path = exported / "config.json"
    path.write_bytes(TREES[change](path.read_bytes()))
    loaded = refused_or(lambda: load_export(exported), exported, path)
    assert loaded is None or all(isinstance(name, str) for name in loaded.class_names)


@pytest.mark.parametrize("change", [*OTHER_FILES, "cut 3", "bit 0", "bit 1", "bytes 0", "value 1"])
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


LINES: dict[str, Change] = {
    "cut off": cut(9, 10),
    "half": cut(1, 2),
    "not JSON": lambda line: b"{]",
    "empty": lambda line: b"",
    "number": lambda line: b"3",
    "list": lambda line: b"[]",
    "null": lambda line: b"null",
    "string": lambda line: b'"step"',
    "empty object": lambda line: b"{}",
    "deep": lambda line: b"[" * 100_000,
    "not UTF-8": lambda line: b"\xff\x80",
    "endless number": lambda line: line.replace(b'"passes": ', b'"passes": 1e999'),
    **{
        f"{name} {what}": lambda line, name=name, value=value: json.dumps(
            {**json.loads(line), name: value}
        ).encode()
        for name in ("step", "epoch", "passes", "train", "validation_accuracy")
        for what, value in (("text", "x"), ("list", [1]), ("not a number", float("nan")))
    },
    **{
        f"without {name}": lambda line, name=name: json.dumps(
            {key: value for key, value in json.loads(line).items() if key != name}
        ).encode()
        for name in ("step", "epoch", "passes", "train", "validation_accuracy")
    },
}


@pytest.mark.parametrize("change", LINES)
@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_line_of_the_log_costs_no_other(
    number: int, change: str, run: Path, config: RunConfig
) -> None:
    """The run is resumed after its first epoch, whose entry is damaged, or the one after it."""
    (run / "result.json").unlink()
    (run / "checkpoints" / "step-000000004.pt").unlink()
    log = run / "metrics.jsonl"
    whole = log.read_bytes().splitlines()
    changed = list(whole)
    changed[number] = LINES[change](whole[number])
    log.write_bytes(b"\n".join(changed) + b"\n")
    outcome = attempt(lambda: train(config, run, resume=True, quiet=True))
    assert outcome.result["epochs"] == 2
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    assert [entry["step"] for entry in entries] == ([4] if number == 0 else [2, 4])
    assert outcome.result["validation_accuracy"] == entries[-1]["validation_accuracy"]


@pytest.mark.parametrize("change", ["cut 3", "null", "empty object", "deep", "not UTF-8"])
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


@pytest.mark.parametrize("change", LINES)
def test_a_report_of_a_damaged_log_is_written(change: str, run: Path, cli: Cli) -> None:
    log = run / "metrics.jsonl"
    first, rest = log.read_bytes().split(b"\n", 1)
    log.write_bytes(LINES[change](first) + b"\n" + rest)
    for name in ("test.json", "record.json"):
        (run / name).write_text(FOUND[name])
    ended = cli("report", run)
    assert ended.code == 0, ended
    assert (run / "report.html").stat().st_size > 10_000


FOUND = {
    "test.json": json.dumps(
        {"suites": {"clean": {"clean_accuracy": 0.5, "images": "digits test", "num_images": 10}}}
    ),
    "record.json": "{}",
}


@pytest.mark.parametrize("change", [*OTHER_FILES, "cut 3"])
@pytest.mark.parametrize("name", ["test.json", "record.json", "results.json"])
def test_a_report_refuses_other_damage(name: str, change: str, run: Path, cli: Cli) -> None:
    folder = run
    if name == "results.json":
        folder = run.parent / "comparison"
        folder.mkdir()
    for other, text in FOUND.items():
        (folder / other).write_text(text)
    path = folder / name
    path.write_bytes(TREES[change](FOUND.get(name, "{}").encode()))
    before = contents(folder)
    ended = cli("report", folder)
    if name == "record.json" and change == "empty object":
        assert ended.code == 0
        return
    assert ended.code == 2, ended
    assert name in ended.err
    assert contents(folder) == before


RECIPE = b"""from advprop.recipes.builtin import digits


def small():
    return digits().with_seed(3)
"""


@pytest.mark.parametrize("change", BYTES)
def test_a_damaged_recipe_is_refused_or_another(change: str, tmp_path: Path, cli: Cli) -> None:
    path = tmp_path / "mine.py"
    path.write_bytes(BYTES[change](RECIPE))
    ended = cli("train", f"{path}:small", "--set", "training.no=1")
    assert ended.code == 2
    assert "mine.py" in ended.err or "training.no" in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize("change", TREES)
def test_a_damaged_configuration_is_no_recipe(
    change: str, run: Path, tmp_path: Path, cli: Cli
) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(TREES[change]((run / "config.json").read_bytes()))
    ended = cli("train", path, "--set", "training.no=1")
    assert ended.code == 2
    assert "mine.json" in ended.err or "training.no" in ended.err
    assert "Traceback" not in ended.err


def setting(generator: random.Random, paths: list[str]) -> str:
    """A path of the configuration, or nearly, with a value that it seldom has."""
    path = generator.choice([*paths, "", ".", "model..name", "training", "x.y", "model.options.z"])
    values = [json.dumps(value) for value in VALUES]
    values += ["1/0", "4/255", "nan", "inf", "1e999", "none", "[" * 10_000, "{", '"', "9" * 5000]
    values += ["vanilla", "folder", "shards", "l2", "\0", "\udcff"]
    return f"{path}={generator.choice(values)}"


@pytest.mark.parametrize("seed", range(60))
def test_settings_are_applied_or_refused(seed: int, config: RunConfig) -> None:
    generator = random.Random(seed)
    tree = config.model_dump(mode="json")
    paths = [".".join(map(str, place)) for place in places(tree)]
    for _ in range(10):
        settings = [setting(generator, paths) for _ in range(generator.randint(1, 3))]
        outcome = attempt(lambda settings=settings: apply_overrides(config, settings))
        assert outcome.message is None or len(outcome.message) > 20
        if outcome.message is None:
            written = json.dumps(outcome.result.model_dump(mode="json"), allow_nan=False)
            assert RunConfig.model_validate(json.loads(written)) == outcome.result


UNBUILDABLE = (
    "model.options.width=x",
    "model.options.width=-1",
    "model.options.width=1.5",
    "model.options.drop_rate=x",
    "model.options.drop_rate=[]",
    "model.options.stem_stride={}",
    "model.options.num_classes=3",
    "model.options.pretrained=true",
    "model.options.mean=[0]",
    "model.options.1=2",
    "model.mean=[0, 0, 0]",
    "model.std=[0]",
    "model.mean=[]",
    "model.name=",
    "model.name=..",
    "model.name=hf-hub:nobody/nothing",
    "model.name=local-dir:/",
    "model.checkpoint=/",
    "model.checkpoint=",
    'model.checkpoint="\\u0000"',
    "seed=1e30",
    "seed=1000000000000000000000000000000",
    "data.num_train=100000000000000000000000000",
    "training.optimizer_options.lr=x",
    "training.optimizer_options=[]",
    "training.optimizer=",
    "training.optimizer=[]",
    "training.milestones=[1]",
)


@pytest.mark.parametrize("override", UNBUILDABLE)
def test_settings_that_cannot_be_built_are_refused(override: str, cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = cli("train", "digits", "--out", out, "--quiet", "--set", override)
    assert ended.code == 2, ended
    assert len(ended.err) > 20
    assert "Traceback" not in ended.err
    assert not out.exists()
