"""TensorBoard and Weights & Biases, each by an extra of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Takes numbers as training goes on."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Take the numbers of one step, counted in optimiser steps."""

    def close(self) -> None:
        """Write what is left."""


class TensorBoard:
    """Event files in `folder`/tensorboard; what was logged `after` a resumed step is hidden."""

    def __init__(self, folder: Path, *, after: int = 0) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ImportError('--tensorboard needs pip install "advprop[tensorboard]"') from None
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=after + 1)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar a name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()


class WeightsAndBiases:
    """One run of Weights & Biases for one folder: a resumed run goes on in it."""

    def __init__(self, folder: Path, config: Mapping[str, Any], *, project: str) -> None:
        try:
            import wandb
        except ImportError:
            raise ImportError('--wandb needs pip install "advprop[wandb]"') from None
        # a run's folder is its identity, also after a kill
        identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        self._run = wandb.init(
            project=project,
            id=f"{folder.name}-{identity}",
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


def flat_numbers(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in nested mappings, as "train/clean/loss" and the like."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat_numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{name}", float(value)
