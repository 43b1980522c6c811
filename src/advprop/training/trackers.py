"""TensorBoard and Weights & Biases, each by an extra of its own."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from advprop.files.writing import writing

_NOT_IN_NAMES = r"[/\\#?%:]"
_GO_ON = "make room or give access, then go on with --resume"


class Tracker(Protocol):
    """Takes numbers as training goes on."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step, counted in optimiser steps."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in `folder`/tensorboard; what was logged `after` a resumed step is hidden."""

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        self._folder = folder / "tensorboard"
        with writing(self._folder, remedy=_GO_ON):
            self._writer = _summary_writer()(self._folder, purge_step=after + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar a name."""
        with writing(self._folder, remedy=_GO_ON):
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        with writing(self._folder, remedy=_GO_ON):
            self._writer.close()


class WeightsAndBiases:
    """One run of Weights & Biases for one folder: a resumed run goes on in it.

    `project` is the name of one, or TEAM/PROJECT.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, project: str) -> None:
        # a run's folder is its identity, also after a kill
        identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        entity, _, name = project.rpartition("/")
        with _wandb_errors():
            self._run = _wandb().init(
                entity=entity or None,
                project=name,
                id=f"{re.sub(_NOT_IN_NAMES, '_', folder.name)}-{identity}",
                name=folder.name,
                dir=str(folder),
                config=dict(config),
                resume="allow",
            )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """All numbers of one step."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()


def check_trackers(tensorboard: bool, wandb: str | None) -> None:
    """Say before a run begins what it could not log to: ValueError, ImportError."""
    if tensorboard:
        _summary_writer()
    if wandb is None:
        return
    names = wandb.split("/")
    if len(names) > 2 or not all(
        name.strip() and len(name) <= 128 and not re.search(_NOT_IN_NAMES, name) for name in names
    ):
        raise ValueError(
            f'--wandb "{wandb}": give PROJECT or TEAM/PROJECT, names of 1 to 128 characters '
            "without / \\ # ? % :"
        )
    package = _wandb()
    if os.environ.get("WANDB_MODE", "online") == "online":
        with _wandb_errors():
            package.login()


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError('--tensorboard needs pip install "advprop[tensorboard]"') from None
    return SummaryWriter


def _wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise ImportError('--wandb needs pip install "advprop[wandb]"') from None
    return wandb


@contextmanager
def _wandb_errors() -> Iterator[None]:
    """Its own errors are neither of values nor of files."""
    try:
        yield
    except _wandb().Error as error:
        raise ValueError(
            f"--wandb: {str(error).strip(' .')}: log in by `wandb login` or WANDB_API_KEY, set "
            "WANDB_MODE=offline to send it later, or leave --wandb out"
        ) from None


def flat_numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested mappings, as "train/clean/loss" and the like."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
