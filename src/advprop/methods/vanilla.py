"""Ordinary training on clean images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.auxiliary.route import CLEAN
from advprop.methods.base import Method
from advprop.methods.learning import learn
from advprop.methods.step import Context, StepMetrics
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class Vanilla(Method):
    """Trains on clean images, with one pass over each; the baseline of all other methods."""

    @property
    def passes_per_image(self) -> float:
        """Return 1, since costs are counted in passes of this method."""
        return 1.0

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the gradients of the mean loss on the clean images to `.grad`; return metrics."""
        return learn(model, {CLEAN: batch}, context)
