"""Adversarial training first, clean fine-tuning after: the AdvProp paper's pilot study."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.attacks.schedule import mean_passes
from advprop.methods.adversarial import Adversarial
from advprop.methods.base import Attacking
from advprop.methods.step import Context, StepMetrics
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class AdversarialThenClean(Attacking):
    """Adversarial images for the first `adversarial_share` of training, clean ones for the rest.

    Half and half in the pilot study of Xie et al. 2020. Needs `Context.progress`.
    """

    adversarial_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.adversarial_share <= 1:
            raise ValueError(f"adversarial_share {self.adversarial_share}: give one in [0, 1]")

    @property
    def passes_per_image(self) -> float:
        """Averaged over the two parts."""
        return 1 + self.adversarial_share * mean_passes(self.attack, until=self.adversarial_share)

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """The part that `context.progress` falls into."""
        if context.progress < self.adversarial_share:
            return Adversarial(attack=self.attack).step(model, batch, context)
        return Vanilla().step(model, batch, context)
