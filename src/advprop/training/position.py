"""The position in training that a run has reached."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Position:
    """The position of a run: `batch` batches into `epoch`, after `step` steps and `seconds`.

    `best_validation_accuracy` is -1 before the first validation. Each of the `rollbacks`, which
    follow a loss that is not finite, halves the learning rate. Raises ValueError for values out of
    bounds.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    best_validation_accuracy: float = -1.0
    rollbacks: int = 0

    def __post_init__(self) -> None:
        for name in ("epoch", "batch", "step", "rollbacks"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise ValueError(f"{name} {value!r}: a whole number of at least 0 is expected")
        check_number("seconds", self.seconds, at_least=0)
        best = self.best_validation_accuracy
        check_number("best_validation_accuracy", best, at_least=-1, at_most=1)

    def check_within(self, *, num_epochs: int, steps_per_epoch: int) -> None:
        """Raise ValueError if a run of this length never reaches this position."""
        step = self.epoch * steps_per_epoch + self.batch
        if self.step != step or self.batch > steps_per_epoch or self.epoch > num_epochs:
            raise ValueError(
                f"step {self.step} is not batch {self.batch} of epoch {self.epoch} in a run of "
                f"{num_epochs} epochs with {steps_per_epoch} steps each"
            )


def check_number(
    name: str, value: object, *, at_least: float = -math.inf, at_most: float = math.inf
) -> None:
    """Raise ValueError unless `value` is a finite number within the bounds."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} {value!r}: a finite number is expected")
    if not at_least <= value <= at_most:
        raise ValueError(f"{name} {value!r}: a number from {at_least} to {at_most} is expected")
