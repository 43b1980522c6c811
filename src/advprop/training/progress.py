"""What a run shows while it goes on: a bar on a terminal, a line an epoch elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from advprop.training.totals import EpochTotals

_REFRESH_SECONDS = 0.5


class TrainingProgress(AbstractContextManager["TrainingProgress"]):
    """Shows losses and accuracies of each kind of images, images a second, and time left.

    Without a terminal it prints a line an epoch; `quiet` prints nothing.
    """

    def __init__(self, *, total_steps: int, done: int, quiet: bool) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._shows_bar = self.console.is_terminal and not quiet
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self._shows_bar,
        )
        self._task = self._bar.add_task(
            "train", total=total_steps, completed=done, epoch=0, numbers=""
        )
        self._refreshed = 0.0

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def step(self, *, step: int, epoch: int, totals: EpochTotals) -> None:
        """Move the bar; the numbers are read now and then, since that waits for the device."""
        if not self._shows_bar:
            return
        self._bar.update(self._task, completed=step)
        if time.monotonic() - self._refreshed > _REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            self._bar.update(self._task, epoch=epoch + 1, numbers=describe(totals.means()))

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Print an epoch's line where there is no bar."""
        if not self._shows_bar:
            validation = entry["validation_accuracy"]
            ending = "" if validation is None else f"  validation {validation:.1%}"
            self.console.print(
                f"epoch {entry['epoch']}  {describe(entry['train'])}{ending}"
                f"  {entry['images_per_second']:.0f} images/s",
                highlight=False,
                soft_wrap=True,
            )


def describe(means: Mapping[str, Any]) -> str:
    """Loss and accuracy of each kind of images in a few words."""
    return "  ".join(
        f"{kind} {numbers['loss']:.3f} {numbers['accuracy']:.1%}"
        for kind, numbers in means.items()
        if isinstance(numbers, Mapping)
    )
