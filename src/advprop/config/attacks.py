"""Threat models and attacks as data.

Bounds are checked by the parts themselves, which every configuration builds on the spot.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import model_validator

from advprop.attacks.pgd import PGD
from advprop.attacks.targets import (
    TargetRule,
    least_likely_class,
    random_other_class,
    untargeted,
)
from advprop.config.fields import Config, Fraction
from advprop.threat_models import L2, Linf, ThreatModel

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


PAPER_ATTACK = AttackConfig(
    threat_model=ThreatModelConfig(epsilon=4 / 255), num_steps=5, step_size=1 / 255
)
"""PGD with 5 steps, AdvProp's default; epsilon and step size as its follow-ups report them."""
