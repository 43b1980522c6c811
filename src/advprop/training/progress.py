"""Shows the progress of a run: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from advprop.files.parsing import printable
from advprop.training.state import EpochTotals

_REFRESH_SECONDS = 0.5
_LINE_SECONDS = 60.0
_TIMED_SECONDS = 2.0


class _Bar(Progress):
    """A bar with a line of numbers below, so that both fit on a narrow terminal."""

    numbers = ""

    def get_renderables(self) -> Iterator[RenderableType]:
        yield self.make_tasks_table(self.tasks)
        if self.numbers:
            yield Text(printable(self.numbers))


class TrainingProgress(AbstractContextManager["TrainingProgress"]):
    """Shows losses and accuracies of each kind of images, images per second, cost and time left.

    It prints a line for each epoch, and once, after the first steps, the expected duration. Within
    epochs, a terminal shows a bar, and other outputs get a line a minute. `quiet` prints nothing.
    The cost is the number of passes over the images so far; vanilla training needs one per epoch.
    """

    def __init__(
        self,
        *,
        total_steps: int,
        num_epochs: int,
        done: int,
        batch_size: int,
        passes_per_image: float,
        quiet: bool,
    ) -> None:
        self.console = Console(stderr=True, quiet=quiet, markup=False, emoji=False)
        self._total, self._epochs = total_steps, num_epochs
        self._batch_size, self._passes = batch_size, passes_per_image
        self._shows_bar = self.console.is_terminal and not quiet
        self._bar = _Bar(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self._shows_bar,
        )
        self._task = self._bar.add_task("train", total=total_steps, completed=done, epoch=0)
        self._first = done
        self._timed: tuple[int, float] | None = None  # a step, and the time of its end
        self._told = False
        self._began = self._shown = time.monotonic()

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        self._began = self._shown = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, *, step: int, epoch: int, totals: EpochTotals) -> None:
        """Move the bar; show metrics only at intervals, since reading them waits for the device."""
        if self._shows_bar:
            self._bar.update(self._task, completed=step, epoch=epoch + 1)
        self._tell_duration(step)
        since = time.monotonic() - self._shown
        if since <= (_REFRESH_SECONDS if self._shows_bar else _LINE_SECONDS):
            return
        self._shown = time.monotonic()
        means = totals.means()
        parts = [describe(means), *_perturbation(means.get("perturbation"))]
        elapsed = max(time.monotonic() - self._began, 1e-9)
        parts.append(f"{(step - self._first) * self._batch_size / elapsed:,.0f} images/s")
        numbers = "  ".join([*parts, *self._cost(self._epochs * step / self._total)])
        if self._shows_bar:
            self._bar.numbers = numbers
        else:
            self._print(f"epoch {epoch + 1}  step {step} of {self._total}  {numbers}", step)

    def _tell_duration(self, step: int) -> None:
        """Print the expected duration once; the first step, which is slower, is not timed."""
        now = time.monotonic()
        first, began = self._timed = self._timed or (step, now)
        if self._told or step < first + 2 or now < began + _TIMED_SECONDS:
            return
        self._told = True
        left = (now - began) / (step - first) * (self._total - step)
        if left >= _LINE_SECONDS:
            self.console.print(
                f"about {timedelta(seconds=round(left))} on this machine for the remaining "
                f"{self._total - step:,} steps, without validation",
                highlight=False,
                soft_wrap=True,
            )

    def epoch(self, entry: Mapping[str, Any]) -> None:
        """Print the line of an epoch from its entry in the log."""
        self._shown = time.monotonic()
        validation = entry["validation_accuracy"]
        parts = [f"epoch {entry['epoch']}", describe(entry["train"])]
        parts += _perturbation(entry["perturbation"])
        if validation is not None:
            parts.append(f"validation {validation:.1%}")
        parts.append(f"{entry['images_per_second']:,.0f} images/s")
        self._print("  ".join([*parts, *self._cost(entry["epoch"])]), entry["step"])

    def _cost(self, epochs: float) -> list[str]:
        """Return the number of passes in `epochs` and vanilla's as text, if they differ."""
        passes = f"cost {self._passes * epochs:.4g} passes (vanilla {epochs:.4g})"
        return [passes] if self._passes != 1 else []

    def _print(self, text: str, step: int) -> None:
        elapsed = time.monotonic() - self._began
        left = elapsed * (self._total - step) / max(step - self._first, 1)
        ending = f"  left {timedelta(seconds=round(left))}" if left >= 1 else ""
        self.console.print(printable(text) + ending, highlight=False, soft_wrap=True)


def _perturbation(mean: float | None) -> list[str]:
    return [] if mean is None else [f"perturbation {255 * mean:.2f}/255"]


def describe(means: Mapping[str, Any]) -> str:
    """Return the loss and accuracy of each kind of images as one line of text."""
    return "  ".join(
        f"{kind} {numbers['loss']:.3f} {numbers['accuracy']:.1%}"
        for kind, numbers in means.items()
        if isinstance(numbers, Mapping)
    )
