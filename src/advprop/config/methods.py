"""Threat models, attacks and training methods as data.

Bounds are checked by the parts themselves, which every configuration builds on the spot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal

from pydantic import Field, model_validator

from advprop.attacks.pgd import PGD
from advprop.attacks.targets import (
    TargetRule,
    least_likely_class,
    random_other_class,
    untargeted,
)
from advprop.config.fields import Config, Fraction
from advprop.methods.adversarial import Adversarial
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.mixed import Mixed
from advprop.methods.vanilla import Vanilla
from advprop.threat_models import L2, Linf, ThreatModel

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
    targets: Literal["random_other_class", "least_likely_class", "untargeted"] = (
        "random_other_class"
    )

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


class VanillaConfig(Config):
    """`Vanilla`."""

    kind: Literal["vanilla"] = "vanilla"

    def build(self) -> Method:
        """Build the method."""
        return Vanilla()


class _AttackingConfig(Config, ABC):
    attack: AttackConfig

    @model_validator(mode="after")
    def _valid(self) -> _AttackingConfig:
        self.build()
        return self

    @abstractmethod
    def build(self) -> Method:
        """Build the method."""


class AdversarialConfig(_AttackingConfig):
    """`Adversarial`."""

    kind: Literal["adversarial"] = "adversarial"

    def build(self) -> Method:
        """Build the method."""
        return Adversarial(attack=self.attack.build())


class MixedConfig(_AttackingConfig):
    """`Mixed`."""

    kind: Literal["mixed"] = "mixed"

    def build(self) -> Method:
        """Build the method."""
        return Mixed(attack=self.attack.build())


class AdvPropConfig(_AttackingConfig):
    """`AdvProp`."""

    kind: Literal["advprop"] = "advprop"
    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    form: Literal["auto", "separate", "joint"] = "auto"

    def build(self) -> Method:
        """Build the method."""
        return AdvProp(
            attack=self.attack.build(),
            clean_weight=self.clean_weight,
            adversarial_weight=self.adversarial_weight,
            form=self.form,
        )


class AdversarialThenCleanConfig(_AttackingConfig):
    """`AdversarialThenClean`."""

    kind: Literal["adversarial_then_clean"] = "adversarial_then_clean"
    adversarial_share: float = 0.5

    def build(self) -> Method:
        """Build the method."""
        return AdversarialThenClean(
            attack=self.attack.build(), adversarial_share=self.adversarial_share
        )


MethodConfig = Annotated[
    VanillaConfig | AdversarialConfig | MixedConfig | AdvPropConfig | AdversarialThenCleanConfig,
    Field(discriminator="kind"),
]

METHODS: dict[
    str,
    type[
        VanillaConfig | AdversarialConfig | MixedConfig | AdvPropConfig | AdversarialThenCleanConfig
    ],
] = {
    "vanilla": VanillaConfig,
    "adversarial": AdversarialConfig,
    "mixed": MixedConfig,
    "advprop": AdvPropConfig,
    "adversarial_then_clean": AdversarialThenCleanConfig,
}

PAPER_ATTACK = AttackConfig(
    threat_model=ThreatModelConfig(epsilon=4 / 255), num_steps=5, step_size=1 / 255
)
"""PGD with 5 steps, AdvProp's default; epsilon and step size as its follow-ups report them."""


def method_config(name: str, attack: AttackConfig | None = None) -> MethodConfig:
    """The method called `name` with its defaults, and with this attack if it attacks.

    Raises ValueError for a name there is no method of.
    """
    if name not in METHODS:
        raise ValueError(f'method "{name}" unknown: choose from {", ".join(METHODS)}')
    cls = METHODS[name]
    if cls is VanillaConfig:
        return VanillaConfig()
    return cls.model_validate({"attack": (attack or PAPER_ATTACK).model_dump()})
