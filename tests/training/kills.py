"""Runs that are killed again and again, and resumed until they finish; test_kills.py starts this.

    python tests/training/kills.py FOLDER KILLS CASE...

Kills come at random moments, in the case "quick" where FIXED says.

One process imports everything and forks a child for each attempt, since imports take seconds. It
adopts whatever a killed child leaves behind, so that loader workers which stay alive are seen.
Prints JSON: every kill that hit a living training process, and the runs that came to their end.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

import advprop.data.batches.workers
import advprop.runs.training
import advprop.training.checkpoint
from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.data.sets.builtin import load_builtin
from advprop.recipes.builtin import mnist5k
from advprop.training.trainer import Trainer

CASES = {
    "every step": ("training.checkpoint_every_steps=1",),
    "loader workers": ("training.checkpoint_every_steps=2", "training.num_workers=2"),
    "every epoch": (),
    "quick": (
        "training.num_epochs=2",
        "training.checkpoint_every_steps=1",
        "training.num_workers=2",
    ),
}
AIMS = {
    "every step": (None, "checkpoint"),
    "loader workers": (None, "checkpoint", "start of workers"),
    "every epoch": (None, "checkpoint", "end of epoch"),
}
"""Stages that a case's kills are aimed at, as often as at none."""
FIXED = (
    ("start of workers", 1),
    ("step", 3),
    ("checkpoint", 4),
    ("end of epoch", 1),
    ("end", 1),
)
"""Where the kills of "quick" hit: as a process enters a stage for the so manieth time."""
STAGES = ("start", "step", "checkpoint", "end of epoch", "start of workers", "end")
PATIENCE = 60.0  # seconds in which what a killed process started must be gone
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

board = mmap.mmap(-1, 1)  # shared with children: the number of the stage they are in
entered: Counter[str] = Counter()  # how often this process has entered each stage
doom: tuple[str, int] | None = None  # where it is killed


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill: in which stage it hit, and what it left."""

    case: str
    stage: str
    has_checkpoint: bool
    temporaries: int
    survivors: int


def config_for(case: str) -> RunConfig:
    base = [
        "training.num_epochs=6",
        "training.batch_size=20",
        "training.ema_decay=0.9",
        "data.num_train=100",
        "model.options.width=8",
        "model.options.drop_rate=0.2",
    ]
    return apply_overrides(mnist5k(), [*base, *CASES[case]])


def show_stages() -> None:
    """Let the functions of a run write on the board which of them is at work."""

    def shown(owner: Any, name: str, stage: str) -> None:
        function: Callable[..., Any] = getattr(owner, name)

        @wraps(function)
        def showing(*arguments: Any, **options: Any) -> Any:
            before, board[0] = board[0], STAGES.index(stage)
            entered[stage] += 1
            if doom == (stage, entered[stage]):
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                return function(*arguments, **options)
            finally:
                board[0] = before

        setattr(owner, name, showing)

    shown(Trainer, "train_step", "step")
    shown(Trainer, "finish_epoch", "end of epoch")
    shown(advprop.training.checkpoint, "write_atomically", "checkpoint")
    shown(advprop.data.batches.workers, "_started", "start of workers")
    shown(advprop.runs.training, "_result", "end")


def start(case: str, folder: Path, end: tuple[str, int] | None) -> int:
    """Fork a child that trains, or goes on, in `folder`, and is killed at `end`.

    A warning would be an error there.
    """
    global doom
    board[0], doom = 0, end
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        warnings.simplefilter("error", UserWarning)
        advprop.runs.training.train(config_for(case), folder, resume=True, quiet=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def has_died(child: int, *, wait: bool) -> bool | None:
    """Whether a kill ended `child`, None while it lives; RuntimeError for an ending of its own."""
    pid, status = os.waitpid(child, 0 if wait else os.WNOHANG)
    if not pid:
        return None
    code = os.waitstatus_to_exitcode(status)
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"an attempt ended with code {code}")
    return code != 0


def kill_once(child: int, rng: random.Random, span: float, aim: str | None) -> bool:
    """Kill `child` at a random moment, soon after it is in the stage `aim`; False: it had ended."""
    moment = time.monotonic() + rng.uniform(0, span)
    while time.monotonic() < moment or (aim is not None and STAGES[board[0]] != aim):
        if has_died(child, wait=False) is not None:
            return False
        time.sleep(0.0005)
    if aim is not None:
        time.sleep(rng.uniform(0, 0.08))
    os.kill(child, signal.SIGKILL)
    return bool(has_died(child, wait=True))


def survivors() -> int:
    """How many processes are alive although their parent has long been killed; they are ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return 0
        time.sleep(0.002)
    left = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in map(int, left):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(left)


def kill_and_resume(
    case: str, folder: Path, rng: random.Random, *, span: float, limit: int
) -> list[Kill]:
    """Train in `folder` to the end, killed up to `limit` times on the way."""
    kills: list[Kill] = []
    while not (folder / "result.json").exists():
        fixed = FIXED[len(kills)] if case == "quick" and len(kills) < limit else None
        child = start(case, folder, fixed)
        if fixed is not None or len(kills) == limit:
            killed = has_died(child, wait=True)
        else:
            killed = kill_once(child, rng, span, rng.choice(AIMS[case]))
        if killed:
            stage, checkpoints = STAGES[board[0]], folder / "checkpoints"
            kills.append(
                Kill(
                    case=case,
                    stage=stage,
                    has_checkpoint=any(checkpoints.glob("step-*.pt")),
                    temporaries=len([*checkpoints.glob(".*.pt.*")]),
                    survivors=survivors(),
                )
            )
    return kills


def main(folder: Path, wanted: int, cases: list[str]) -> None:
    torch.set_num_threads(1)  # with more, a forked child would wait for threads it has not
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    load_builtin("mnist5k", num_train=10)  # read once, for all children
    show_stages()
    spans = {}
    for case in cases:
        began = time.monotonic()
        kill_and_resume(case, folder / case / "whole", random.Random(), span=0.0, limit=0)
        spans[case] = 0.4 * (time.monotonic() - began)
    kills: list[Kill] = []
    runs: list[str] = []
    for number, case in enumerate(cycle(cases)):
        if len(kills) >= wanted:
            break
        runs.append(f"{case}/cut {number}")
        kills += kill_and_resume(
            case,
            folder / runs[-1],
            random.Random(number),
            span=spans[case],
            limit=wanted - len(kills),
        )
    print(json.dumps({"kills": [asdict(kill) for kill in kills], "runs": runs, "spans": spans}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
