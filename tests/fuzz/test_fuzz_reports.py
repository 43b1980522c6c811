"""Damaged logs and results: what is whole is kept and shown, what is not is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli, contents
from damage import OTHER_FILES, Change, attempt, cases, cut
from json_damage import TREES

from advprop.config import RunConfig
from advprop.runs import train

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


@pytest.mark.parametrize("change", cases(LINES, quick=8))
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


@pytest.mark.parametrize("kept", [0, 1])
def test_the_end_of_the_log_is_missed(kept: int, run: Path, config: RunConfig) -> None:
    (run / "result.json").unlink()
    log = run / "metrics.jsonl"
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:kept]))
    outcome = attempt(lambda: train(config, run, resume=True, quiet=True))
    assert outcome.message is not None
    assert "metrics.jsonl" in outcome.message
    (run / "checkpoints" / "step-000000004.pt").unlink()  # as the message says
    assert attempt(lambda: train(config, run, resume=True, quiet=True)).result["epochs"] == 2


def test_a_log_without_checkpoints_begins_anew(run: Path, config: RunConfig) -> None:
    (run / "result.json").unlink()
    for path in (run / "checkpoints").glob("step-*.pt"):
        path.unlink()
    train(config, run, resume=True, quiet=True)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4]


@pytest.mark.parametrize("change", cases(LINES, quick=8))
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


@pytest.mark.parametrize("change", cases([*OTHER_FILES, "cut 3"], quick=7))
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
