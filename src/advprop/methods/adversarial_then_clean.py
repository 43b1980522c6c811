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
    """Trains on adversarial images for an `adversarial_share` of training, then on clean ones.

    The pilot study of Xie et al. 2020 uses one half for each, as the default does. Needs
    `Context.progress`. Raises ValueError for an `adversarial_share` outside [0, 1].
    """

    adversarial_share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.adversarial_share <= 1:
            raise ValueError(f"adversarial_share {self.adversarial_share}: give one in [0, 1]")

    @property
    def passes_per_image(self) -> float:
        """Return the mean number of passes over both parts of training."""
        return 1 + self.adversarial_share * mean_passes(self.attack, until=self.adversarial_share)

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Run a step of `Adversarial` or `Vanilla`, depending on `context.progress`."""
        if context.progress < self.adversarial_share:
            return Adversarial(attack=self.attack).step(model, batch, context)
        return Vanilla().step(model, batch, context)
