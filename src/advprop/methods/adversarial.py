"""Adversarial training (Madry et al. 2018): adversarial images only."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.attacks.pgd import Attack
from advprop.attacks.schedule import Scheduled
from advprop.auxiliary.modes import attack_mode
from advprop.methods.base import (
    ADVERSARIAL,
    Context,
    Method,
    StepMetrics,
    attacked_module,
    learn,
    perturbation_size,
)
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class Adversarial(Method):
    """Every image is attacked, and only its adversarial version is learnt from.

    Buys robustness with clean accuracy: the loss that AdvProp avoids.
    """

    attack: Attack

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, and one pass to learn."""
        return self.attack.passes_per_image + 1

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack, then learn from the result."""
        images = attacked(self.attack, model, batch, context)
        metrics = learn(model, images, batch.labels, context)
        return StepMetrics(
            loss=metrics.loss,
            kinds={ADVERSARIAL: metrics},
            perturbation=perturbation_size(batch.images, images),
        )


def attacked(attack: Attack, model: nn.Module, batch: Batch, context: Context) -> Images:
    """The batch's adversarial images, made through whichever branch is active."""
    module = attacked_module(model)
    now = attack.at(context.progress) if isinstance(attack, Scheduled) else attack
    with attack_mode(module):
        return now(module, batch.images, batch.labels, generator=context.generator)
