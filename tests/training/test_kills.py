"""Killed at any moment and resumed, a run ends as an undisturbed one does, bit for bit."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from run_folders import log_of

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.training.checkpoint import Checkpoints
from advprop.training.run_log import RunLog

APART = {"seconds", "images_per_second", "train_seconds", "source"}
"""What two runs of one configuration may tell apart: times, and where a checkpoint lies."""


def killed_and_resumed(folder: Path, count: int, *cases: str) -> list[dict[str, Any]]:
    """Kill runs `count` times (`kills.py`), compare each with an undisturbed one; the kills."""
    script = Path(__file__).with_name("kills.py")
    ended = subprocess.run(
        [sys.executable, str(script), str(folder), str(count), *cases],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-5000:]
    told = json.loads(ended.stdout)
    for run in told["runs"]:
        whole, cut = ending(folder / run.split("/")[0] / "whole"), ending(folder / run)
        assert list(whole) == list(cut), run
        for name in whole:
            assert_same(whole[name], cut[name], f"{run}: {name}")
        assert hidden(folder / run) == [".lock"], f"{run}: half-written files are left"
    kills: list[dict[str, Any]] = told["kills"]
    assert len(kills) == count
    assert not [kill for kill in kills if kill["survivors"]]
    return kills


def ending(folder: Path) -> dict[str, Any]:
    """All that a finished run leaves."""
    checkpoints = Checkpoints(folder / "checkpoints")
    state = checkpoints.load_newest()
    assert state is not None
    best = torch.load(checkpoints.best, weights_only=True)
    result = json.loads((folder / "result.json").read_text())
    log = log_of(folder)
    return comparable({**state, "best": best, "result": result, "log": log})


def comparable(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: comparable(value) for name, value in tree.items() if name not in APART}
    return [comparable(value) for value in tree] if isinstance(tree, list) else tree


def assert_same(one: Any, other: Any, name: str) -> None:
    """Equal tensors (bit for bit) and values in equal places."""
    if isinstance(one, dict):
        assert list(one) == list(other), name
        for key in one:
            assert_same(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), name
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_same(a, b, f"{name}[{number}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), name
    else:
        assert one == other, name


def test_five_kills(tmp_path: Path) -> None:
    kills = killed_and_resumed(tmp_path, 5, "quick")
    assert [kill["stage"] for kill in kills] == [
        "start of workers",
        "step",
        "checkpoint",
        "end of epoch",
        "end",
    ]


@pytest.mark.full
def test_one_hundred_kills(tmp_path: Path) -> None:
    kills = killed_and_resumed(tmp_path, 100, "every step", "loader workers", "every epoch")
    stages = Counter(kill["stage"] for kill in kills)
    later = sum(kill["has_checkpoint"] for kill in kills)
    halves = sum(kill["temporaries"] for kill in kills)
    print(
        f"100 kills: {dict(stages)}; {later} after a first checkpoint; {halves} files half-written"
    )
    assert later >= 70
    assert stages["checkpoint"] >= 10  # where a kill hits depends on the machine's load
    assert halves >= 5  # kills that hit between the first byte and the rename


def quick() -> RunConfig:
    settings = ["training.num_epochs=2", "data.num_train=40", "training.batch_size=20"]
    return apply_overrides(digits().with_method("vanilla"), settings)


def train_until_placing(file: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and die where `file` would be put in its place, so that nobody tidies up."""
    whole = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target.name == file:
            raise MemoryError("killed")
        return whole(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        patch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        with pytest.raises(MemoryError):
            train(quick(), folder, quiet=True)


@pytest.mark.parametrize(
    "file", ["config.json", "data.json", "best.pt", "step-000000002.pt", "result.json"]
)
def test_a_kill_in_the_middle_of_a_write_leaves_nothing_behind(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_until_placing(file, tmp_path, monkeypatch)
    assert len(hidden(tmp_path)) == 2  # the lock and the file half-written
    train(quick(), tmp_path, resume=True, quiet=True)
    assert hidden(tmp_path) == [".lock"]
    # an entry of the log that no checkpoint followed is not there twice
    assert [entry["epoch"] for entry in RunLog(tmp_path / "metrics.jsonl").read()] == [1, 2]


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]
