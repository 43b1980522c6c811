"""Schedules of attacks: fewer steps early in training, when a network is fooled easily."""

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

_NUM_PLACES = 840  # a multiple of 1 to 8, so that the mean over as many levels is exact


@runtime_checkable
class Scheduled(Protocol):
    """An attack that changes in the course of training."""

    def at(self, progress: float) -> Attack:
        """Return the attack when a share `progress` of training, 0 to 1, is done."""
        ...


def mean_passes(attack: Attack, *, until: float) -> float:
    """Return the attack's mean passes per image over the first share `until` of training."""
    if not isinstance(attack, Scheduled):
        return attack.passes_per_image
    places = [(number + 0.5) / _NUM_PLACES * until for number in range(_NUM_PLACES)]
    return fmean(attack.at(place).passes_per_image for place in places)


@dataclass(frozen=True, kw_only=True)
class GrowingSteps(GradientAttack):
    """PGD with `first_steps` steps at the beginning of training and `attack.num_steps` at its end.

    Each number of steps from the first to the last is used for an equal share of the training, so
    the mean cost is halfway between. Called as an attack, outside of a training, it runs `attack`,
    the last one. Curriculum adversarial training (Cai et al. 2018, arXiv 1805.04807) is similar.
    Raises ValueError for `first_steps` below 0 or above `attack.num_steps`.
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
        """Return the mean number of steps over the training."""
        return (self.first_steps + self.attack.num_steps) / 2

    @property
    def threat_model(self) -> ThreatModel:
        """Return the threat model, which is the same throughout the training."""
        return self.attack.threat_model

    @property
    def targets(self) -> TargetRule:  # type: ignore[override]  # read-only here
        """Return the target rule, which is the same throughout the training."""
        return self.attack.targets

    def at(self, progress: float) -> PGD:
        """Return the attack when a share `progress` of training, 0 to 1, is done."""
        levels = self.attack.num_steps - self.first_steps + 1
        grown = min(int(progress * levels), levels - 1)
        return replace(self.attack, num_steps=self.first_steps + grown)

    def maximise(
        self, objective: Objective, images: Images, *, generator: Randomness = None
    ) -> Images:
        """Return versions of `images` that raise `objective`, made by the last attack, `attack`."""
        return self.attack.maximise(objective, images, generator=generator)
