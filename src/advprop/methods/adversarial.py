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
    """Attacks every image, and trains on the adversarial version only.

    This gains robustness at the expense of clean accuracy; AdvProp is made to avoid that loss.
    """

    @property
    def passes_per_image(self) -> float:
        """Return the attack's passes plus one pass over the adversarial images."""
        return self.attack.passes_per_image + 1

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack the images, then add the gradients of their mean loss to `.grad`."""
        images = adversarial_images(self.attack, model, batch, context)
        kinds = {ADVERSARIAL: Batch(images=images, labels=batch.labels)}
        change = perturbation_size(batch.images, images)
        return learn(model, kinds, context, perturbation=change)
