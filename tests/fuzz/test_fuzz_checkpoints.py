"""Damaged checkpoints: passed over, or one message; never other weights, code, or losses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import contents
from damage import OTHER_FILES, assert_named, attempt, cases, changes, damage

from advprop.config import RunConfig
from advprop.runs import train
from advprop.runs.exporting import export
from advprop.runs.folder import load_run
from advprop.suites import evaluate
from advprop.training.checkpoint import Checkpoints

BYTES = changes(cuts=24, flips=40, replacements=16)
SOME_BYTES = changes(cuts=3, flips=4, replacements=2)


def steps(folder: Path) -> list[Path]:
    return Checkpoints(folder / "checkpoints").by_step()


def same_weights(folder: Path, other: Path, weights: Any = "last") -> bool:
    ours, theirs = (load_run(f, weights=weights).model.state_dict() for f in (folder, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


@pytest.mark.parametrize("change", cases(SOME_BYTES, quick=12))
def test_a_resumed_run_ends_as_if_nothing_had_been_damaged(
    change: str, run: Path, whole_run: Path, config: RunConfig
) -> None:
    """Whatever became of the newest file: it is passed over, or the damage means nothing."""
    (run / "result.json").unlink()
    damage(steps(run)[0], SOME_BYTES[change])
    outcome = attempt(lambda: train(config, run, resume=True, quiet=True))
    assert outcome.message is None
    assert outcome.result["epochs"] == 2
    assert same_weights(run, whole_run)
    assert contents(run).keys() == {str(run / p.relative_to(whole_run)) for p in files(whole_run)}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("change", cases(BYTES, quick=40))
def test_a_damaged_best_is_refused_or_whole(change: str, run: Path, whole_run: Path) -> None:
    best = run / "checkpoints" / "best.pt"
    damage(best, BYTES[change])
    before = contents(run)
    outcome = attempt(lambda: same_weights(run, whole_run, "best"))
    assert contents(run) == before
    if outcome.message is None:
        assert outcome.result
    else:
        assert_named(outcome.message, best)


@pytest.mark.parametrize("change", cases(OTHER_FILES, quick=6))
@pytest.mark.parametrize("use", ["resume", "evaluate", "export"])
def test_where_no_checkpoint_is_whole_nothing_happens(
    use: str, change: str, run: Path, config: RunConfig
) -> None:
    (run / "result.json").unlink()
    for path in steps(run):
        damage(path, OTHER_FILES[change])
    before = contents(run)
    calls = {
        "resume": lambda: train(config, run, resume=True, quiet=True),
        "evaluate": lambda: evaluate(run, suites=("clean",)),
        "export": lambda: export(run, run.parent / "exported"),
    }
    outcome = attempt(calls[use])
    assert outcome.message is not None
    assert "is intact" in outcome.message
    assert_named(outcome.message, steps(run)[0])
    assert contents(run) == before
    assert list(run.parent.iterdir()) == [run]


@pytest.mark.parametrize("fraction", range(1, 12))
def test_zeros_in_the_middle_of_the_weights_are_seen(
    fraction: int, run: Path, whole_run: Path, config: RunConfig
) -> None:
    """As a disk leaves them that lost a block."""

    def change(content: bytes) -> bytes:
        place = len(content) * fraction // 12
        return content[:place] + bytes(4096) + content[place + 4096 :]

    damage(run / "checkpoints" / "best.pt", change)
    outcome = attempt(lambda: load_run(run, weights="best"))
    assert outcome.message is not None
    assert "best.pt" in outcome.message
