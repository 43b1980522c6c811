"""Threat models and attacks as data.

Bounds are checked by the parts themselves, which every configuration builds on the spot.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal, TypeAlias

from pydantic import model_validator

from advprop.attacks.objectives import (
    TargetRule,
    least_likely_class,
    random_other_class,
    untargeted,
)
from advprop.attacks.pgd import PGD, Attack
from advprop.attacks.schedule import GrowingSteps
from advprop.attacks.threat_models import L2, Linf, ThreatModel
from advprop.config.fields import Config, Fraction

TargetName: TypeAlias = Literal["random_other_class", "least_likely_class", "untargeted"]

TARGET_RULES: dict[str, TargetRule] = {
    "random_other_class": random_other_class,
    "least_likely_class": least_likely_class,
    "untargeted": untargeted,
}


class ThreatModelConfig(Config):
    """`Linf` or `L2`."""

    kind: Literal["linf", "l2"] = "linf"
    epsilon: Fraction

    @model_validator(mode="after")
    def _valid(self) -> ThreatModelConfig:
        self.build()
        return self

    def build(self) -> ThreatModel:
        """Build the threat model."""
        return Linf(self.epsilon) if self.kind == "linf" else L2(self.epsilon)


class AttackConfig(Config):
    """`PGD`."""

    threat_model: ThreatModelConfig
    num_steps: int
    step_size: Fraction
    random_start_probability: float = 1.0
    targets: TargetName = "random_other_class"

    @model_validator(mode="after")
    def _valid(self) -> AttackConfig:
        self.build()
        return self

    def build(self) -> PGD:
        """Build the attack."""
        return PGD(
            threat_model=self.threat_model.build(),
            num_steps=self.num_steps,
            step_size=self.step_size,
            random_start_probability=self.random_start_probability,
            targets=TARGET_RULES[self.targets],
        )

    def as_pgd(self) -> AttackConfig:
        """The same attack for other methods."""
        return self


class TrainingAttackConfig(AttackConfig):
    """`PGD` to train with.

    `first_steps` is the number of steps at the beginning of training, which grows to `num_steps`
    (`GrowingSteps`).
    """

    removed: ClassVar[Mapping[str, object]] = {"resolution": 1.0, "inner_steps": 0, "until": None}

    first_steps: int | None = None

    @model_validator(mode="after")
    def _valid_training(self) -> TrainingAttackConfig:
        self.build_for_training()
        return self

    def build_for_training(self) -> Attack:
        """Build the attack, with what makes it cheaper."""
        if self.first_steps is None:
            return self.build()
        return GrowingSteps(attack=self.build(), first_steps=self.first_steps)


class OneStepConfig(Config):
    """One step away from the labels by a training pass's own gradient: that of `Fast`, `Carried`.

    `step_size` none is epsilon, as in Mei et al. 2022.
    """

    threat_model: ThreatModelConfig
    step_size: Fraction | None = None

    def as_pgd(self) -> TrainingAttackConfig:
        """The same attack for other methods."""
        step_size = self.threat_model.epsilon if self.step_size is None else self.step_size
        return TrainingAttackConfig(
            threat_model=self.threat_model, num_steps=1, step_size=step_size, targets="untargeted"
        )


AnyAttackConfig: TypeAlias = AttackConfig | OneStepConfig
"""Attacks whose strength another method can take over."""

PAPER_ATTACK = TrainingAttackConfig(
    threat_model=ThreatModelConfig(epsilon=4 / 255), num_steps=5, step_size=1 / 255
)
"""PGD with 5 steps, AdvProp's default; epsilon and step size as its follow-ups report them."""
