"""Means over the steps of an epoch, summed on the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advprop.methods.base import StepMetrics


class EpochTotals:
    """Sums of each step's metrics; reading them waits for the device, adding does not.

    `sums` and `steps` are from `state_dict`; raises ValueError for invalid ones.
    """

    def __init__(self, sums: dict[str, Tensor] | None = None, steps: int = 0) -> None:
        self.sums = sums or {}
        self.steps = steps
        _check(self.sums, steps)

    def add(self, *steps: StepMetrics) -> None:
        """Add the metrics of steps, or of the parts of one step."""
        for metrics in steps:
            self.steps += 1
            for kind, numbers in metrics.kinds.items():
                self._add(f"{kind}.loss", numbers.loss)
                for name, value in numbers.metrics.items():
                    self._add(f"{kind}.{name}", value)
                if numbers.share != 1:
                    self._add(f"{kind}.share", torch.full_like(numbers.loss, numbers.share))
            if metrics.perturbation is not None:
                self._add("perturbation", metrics.perturbation)

    def means(self) -> dict[str, Any]:
        """Return mean loss and metrics of each kind of images, and the mean perturbation.

        A kind's means are over the steps that have it. A kind that is only a part of each batch
        also has its `share`.
        """
        result: dict[str, Any] = {}
        for name, total in self.sums.items():
            if name.endswith("#"):
                continue
            kind, _, quantity = name.partition(".")
            mean = total.item() / self.sums[f"{name}#"].item()
            if quantity:
                result.setdefault(kind, {})[quantity] = mean
            else:
                result[kind] = mean
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint in the middle of an epoch."""
        return {
            "sums": {name: total.cpu() for name, total in self.sums.items()},
            "steps": self.steps,
        }

    def _add(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        for key, amount in ((name, value), (f"{name}#", torch.ones_like(value))):
            self.sums[key] = (
                self.sums[key].to(value.device) + amount if key in self.sums else amount
            )


def _check(sums: dict[str, Tensor], steps: int) -> None:
    if type(steps) is not int or steps < 0:
        raise ValueError(f"{steps!r} steps: a whole number of at least 0 is expected")
    for name, total in sums.items():
        if not isinstance(total, Tensor) or total.dim() or not total.isfinite():
            raise ValueError(f"sum {name} is {total!r}: a single finite number is expected")
        if not name.endswith("#") and not (f"{name}#" in sums and sums[f"{name}#"] > 0):
            raise ValueError(f"sum {name} has no number of steps: one above 0 is expected")
