"""AdvProp that attacks in some steps only, and shows what it found before in the others."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.methods.advprop import AdvProp
from advprop.methods.base import Context, TrainingFacts
from advprop.methods.carrying import Carrying, CarryingMethod
from advprop.methods.perturbation_store import precision_for
from advprop.shapes import Batch, Images
from advprop.threat_models import ThreatModel


@dataclass(frozen=True, kw_only=True)
class PeriodicAdvProp(CarryingMethod, AdvProp):
    """`AdvProp` with an attack in each `attack_every`-th step, whose perturbations are kept.

    In the other steps an image shows what it was last attacked with, in an earlier epoch, as its
    present crop and flip have it; before its first attack, random noise in `threat_model`, which is
    the attack's. That perturbations transfer between epochs is from Zheng et al. (CVPR 2020, arXiv
    1912.11969). Needs `prepare`, and batches with `indices`.
    """

    threat_model: ThreatModel
    attack_every: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attack_every < 1:
            raise ValueError(f"attack_every {self.attack_every}: give at least 1")

    @property
    def passes_per_image(self) -> float:
        """One clean and one adversarial pass, and the attack's share of steps."""
        return self.attack.passes_per_image / self.attack_every + 2

    def carrying_for(self, facts: TrainingFacts) -> Carrying:
        """With a random start."""
        return Carrying.for_training(
            facts, self.threat_model, precision=precision_for(self.threat_model), start="random"
        )

    def attacked(self, model: nn.Module, batch: Batch, context: Context) -> Images:
        """Attacked anew and kept, or as they were kept."""
        carrying = self.carrying(batch)
        if context.step % self.attack_every:
            return carrying.perturbed(batch, context).points.detach()
        images = super().attacked(model, batch, context)
        carrying.replace(batch, images, context)
        return images
