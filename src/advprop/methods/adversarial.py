"""Adversarial training (Madry et al. 2018): adversarial images only."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.methods.base import Attacking
from advprop.methods.learning import learn
from advprop.methods.step import (
    ADVERSARIAL,
    Context,
    StepMetrics,
    adversarial_images,
    perturbation_size,
)
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class Adversarial(Attacking):
    """Every image is attacked, and only its adversarial version is learnt from.

    Buys robustness with clean accuracy: the loss that AdvProp avoids.
    """

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, and one pass to learn."""
        return self.attack.passes_per_image + 1

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack, then learn from the result."""
        images = adversarial_images(self.attack, model, batch, context)
        kinds = {ADVERSARIAL: Batch(images=images, labels=batch.labels)}
        change = perturbation_size(batch.images, images)
        return learn(model, kinds, context, perturbation=change)
