"""Fewer attack steps early in training, when a net is fooled easily."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import fmean
from typing import Protocol, runtime_checkable

from advprop.attacks.attack import Attack, GradientAttack
from advprop.attacks.objectives import Objective, TargetRule
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import ThreatModel
from advprop.randomness import Randomness
from advprop.shapes import Images

_NUM_PLACES = 840  # a multiple of 1 to 8 levels, whose mean it gives exactly


@runtime_checkable
class Scheduled(Protocol):
    """An attack that changes in the course of training."""

    def at(self, progress: float) -> Attack:
        """The attack when a share `progress` of training, 0 to 1, is done."""
        ...


def mean_passes(attack: Attack, *, until: float) -> float:
    """The attack's passes an image, averaged over the first share `until` of training."""
    if not isinstance(attack, Scheduled):
        return attack.passes_per_image
    places = [(number + 0.5) / _NUM_PLACES * until for number in range(_NUM_PLACES)]
    return fmean(attack.at(place).passes_per_image for place in places)


@dataclass(frozen=True, kw_only=True)
class GrowingSteps(GradientAttack):
    """PGD with `first_steps` steps at the beginning of training and `attack.num_steps` at its end.

    Each number in between has an equal share of the training, so that the mean cost is halfway.
    As an attack by itself it is `attack`, the last of them. Curriculum adversarial training (Cai
    et al. 2018, arXiv 1805.04807) is its relative. Raises ValueError for more steps at first than
    at last.
    """

    attack: PGD
    first_steps: int

    def __post_init__(self) -> None:
        if not 0 <= self.first_steps <= self.attack.num_steps:
            raise ValueError(
                f"first_steps {self.first_steps}: give 0 to num_steps, {self.attack.num_steps}"
            )

    @property
    def passes_per_image(self) -> float:
        """Averaged over training."""
        return (self.first_steps + self.attack.num_steps) / 2

    @property
    def threat_model(self) -> ThreatModel:
        """That of all its attacks."""
        return self.attack.threat_model

    @property
    def targets(self) -> TargetRule:  # type: ignore[override]  # read-only here
        """That of all its attacks."""
        return self.attack.targets

    def at(self, progress: float) -> PGD:
        """The attack when a share `progress` of training is done."""
        levels = self.attack.num_steps - self.first_steps + 1
        grown = min(int(progress * levels), levels - 1)
        return replace(self.attack, num_steps=self.first_steps + grown)

    def maximise(
        self, objective: Objective, images: Images, *, generator: Randomness = None
    ) -> Images:
        """Versions of `images` that raise `objective`, by the attack of the end of training."""
        return self.attack.maximise(objective, images, generator=generator)
