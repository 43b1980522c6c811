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
    """Clean images, one pass each: what every other method is measured against."""

    @property
    def passes_per_image(self) -> float:
        """1, by definition."""
        return 1.0

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Forward and backward over the clean images."""
        return learn(model, {CLEAN: batch}, context)
