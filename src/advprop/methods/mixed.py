"""Adversarial training on a mixture: the baseline that AdvProp argues against."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.attacks.pgd import Attack
from advprop.methods.adversarial import attacked
from advprop.methods.base import (
    ADVERSARIAL,
    Context,
    Method,
    StepMetrics,
    learn_together,
    perturbation_size,
)
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class Mixed(Method):
    """Clean and adversarial images in one batch through the same layers, losses summed.

    Always one concatenated batch: its point is that the statistics are those of the mixture
    (Xie et al. 2020).
    """

    attack: Attack

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack, then learn from both kinds of images at once."""
        images = attacked(self.attack, model, batch, context)
        return learn_jointly(model, batch, images, context)


def learn_jointly(
    model: nn.Module,
    batch: Batch,
    adversarial: Images,
    context: Context,
    *,
    weights: tuple[float, float] = (1.0, 1.0),
) -> StepMetrics:
    """One forward and backward over clean and adversarial images, each kind's mean loss summed."""
    parts = (batch, Batch(images=adversarial, labels=batch.labels))
    clean, other = learn_together(model, parts, context, weights=weights)
    return StepMetrics(
        loss=weights[0] * clean.loss + weights[1] * other.loss,
        kinds={"clean": clean, ADVERSARIAL: other},
        perturbation=perturbation_size(batch.images, adversarial),
    )
