"""Adversarial training on a mixture: the baseline that AdvProp argues against."""

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
    """Clean and adversarial images in one batch through the same layers, losses summed.

    Always one concatenated batch: its point is that the statistics are those of the mixture
    (Xie et al. 2020).
    """

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack, then learn from both kinds of images at once."""
        images = adversarial_images(self.attack, model, batch, context)
        kinds = {CLEAN: batch, ADVERSARIAL: Batch(images=images, labels=batch.labels)}
        change = perturbation_size(batch.images, images)
        return learn(model, kinds, context, form="joint", perturbation=change)
