"""Adversarial training on clean and adversarial images together, the baseline of AdvProp."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.auxiliary.route import CLEAN
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
class Mixed(Attacking):
    """Trains on clean and adversarial images in one batch, through the same layers.

    The two mean losses are summed. There is no form with a pass for each kind: in this baseline,
    normalisation uses the statistics of the mixture (Xie et al. 2020).
    """

    @property
    def passes_per_image(self) -> float:
        """Return the attack's passes plus one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack the images, then add the gradients of both mean losses to `.grad`."""
        images = adversarial_images(self.attack, model, batch, context)
        kinds = {CLEAN: batch, ADVERSARIAL: Batch(images=images, labels=batch.labels)}
        change = perturbation_size(batch.images, images)
        return learn(model, kinds, context, form="joint", perturbation=change)
