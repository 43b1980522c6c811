"""Configurations of threat models and attacks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from advprop.attacks.attack import Attack
from advprop.attacks.objectives import (
    TargetRule,
    least_likely_class,
    random_other_class,
    untargeted,
)
from advprop.attacks.pgd import PGD
from advprop.attacks.schedule import GrowingSteps
from advprop.attacks.threat_models import L2, Linf, ThreatModel
from advprop.config.fields import Buildable, Built, Config, Fraction

TargetName: TypeAlias = Literal["random_other_class", "least_likely_class", "untargeted"]

TARGET_RULES: dict[str, TargetRule] = {
    "random_other_class": random_other_class,
    "least_likely_class": least_likely_class,
    "untargeted": untargeted,
}


class ThreatModelConfig(Buildable[ThreatModel]):
    """The configuration of `Linf` or `L2`."""

    kind: Literal["linf", "l2"] = "linf"
    epsilon: Fraction

    def build(self) -> ThreatModel:
        """Return the threat model."""
        return Linf(self.epsilon) if self.kind == "linf" else L2(self.epsilon)


class Targeted(Buildable[Built]):
    """The base of attacks that name the rule for their targets."""

    if TYPE_CHECKING:
        targets: TargetName

    def settings(self) -> dict[str, Any]:
        """Return the settings, with the target rule in place of its name."""
        return {**super().settings(), "targets": TARGET_RULES[self.targets]}


class _PGDConfig(Targeted[Built]):
    builds = PGD

    threat_model: ThreatModelConfig
    num_steps: int
    step_size: Fraction
    random_start_probability: float = 1.0
    targets: TargetName = "random_other_class"

    def as_pgd(self) -> Self:
        """Return this attack, for methods that take over its strength."""
        return self


class AttackConfig(_PGDConfig[PGD]):
    """The configuration of `PGD`."""


class TrainingAttackConfig(_PGDConfig[Attack]):
    """The configuration of `PGD` for training.

    `first_steps`, if given, is the number of steps at the beginning of training, which grows to
    `num_steps` (`GrowingSteps`).
    """

    removed: ClassVar[Mapping[str, object]] = {"resolution": 1.0, "inner_steps": 0, "until": None}

    first_steps: int | None = None

    def build(self) -> Attack:
        """Return the attack."""
        settings = self.settings()
        first_steps = settings.pop("first_steps")
        attack = PGD(**settings)
        if first_steps is None:
            return attack
        return GrowingSteps(attack=attack, first_steps=first_steps)


class OneStepConfig(Config):
    """The attack of `Fast` and `AdvPropLean`: one untargeted step along a training pass's gradient.

    `step_size` defaults to epsilon, as in Mei et al. 2022.
    """

    threat_model: ThreatModelConfig
    step_size: Fraction | None = None

    def as_pgd(self) -> TrainingAttackConfig:
        """Return this attack as PGD, for methods that take over its strength."""
        step_size = self.threat_model.epsilon if self.step_size is None else self.step_size
        return TrainingAttackConfig(
            threat_model=self.threat_model, num_steps=1, step_size=step_size, targets="untargeted"
        )


AnyAttackConfig: TypeAlias = AttackConfig | TrainingAttackConfig | OneStepConfig
"""The attacks whose strength another method can take over."""

PAPER_ATTACK = TrainingAttackConfig(
    threat_model=ThreatModelConfig(epsilon=4 / 255), num_steps=5, step_size=1 / 255
)
"""AdvProp's default PGD with 5 steps; epsilon and step size are those that follow-ups report."""
