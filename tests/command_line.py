"""What tests of the command line share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

QUICK = ("--set", "training.num_epochs=2", "--set", "data.num_train=100", "--quiet")


@dataclass
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


Cli = Callable[..., Ended]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, to see that nothing was lost."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
