"""Training methods as data.

Bounds are checked by the parts themselves, which every configuration builds on the spot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from advprop.config.attacks import PAPER_ATTACK, AttackConfig
from advprop.config.fields import Config
from advprop.config.pyramid import PyramidConfig, UniversalConfig
from advprop.methods.adversarial import Adversarial
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.mixed import Mixed
from advprop.methods.vanilla import Vanilla


class VanillaConfig(Config):
    """`Vanilla`."""

    kind: Literal["vanilla"] = "vanilla"

    @classmethod
    def with_attack(cls, attack: AttackConfig | None) -> VanillaConfig:
        """The only one there is."""
        return cls()

    def build(self) -> Method:
        """Build the method."""
        return Vanilla()


class _AttackingConfig(Config, ABC):
    attack: AttackConfig

    @model_validator(mode="after")
    def _valid(self) -> _AttackingConfig:
        self.build()
        return self

    @classmethod
    def with_attack(cls, attack: AttackConfig | None) -> Self:
        """The defaults with this attack, or the paper's."""
        return cls(attack=attack or PAPER_ATTACK)

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
    form: Literal["auto", "separate", "joint", "summed"] = "auto"
    matched_masks: bool = False

    def build(self) -> Method:
        """Build the method."""
        return AdvProp(
            attack=self.attack.build(),
            clean_weight=self.clean_weight,
            adversarial_weight=self.adversarial_weight,
            form=self.form,
            matched_masks=self.matched_masks,
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


AnyMethodConfig: TypeAlias = (
    VanillaConfig
    | AdversarialConfig
    | MixedConfig
    | AdvPropConfig
    | AdversarialThenCleanConfig
    | PyramidConfig
    | UniversalConfig
)
MethodConfig = Annotated[AnyMethodConfig, Field(discriminator="kind")]

METHODS: dict[str, type[AnyMethodConfig]] = {
    "vanilla": VanillaConfig,
    "adversarial": AdversarialConfig,
    "mixed": MixedConfig,
    "advprop": AdvPropConfig,
    "adversarial_then_clean": AdversarialThenCleanConfig,
    "pyramid": PyramidConfig,
    "universal": UniversalConfig,
}


def method_config(name: str, attack: AttackConfig | None = None) -> MethodConfig:
    """The method called `name` with its defaults, and as strong as this attack if it attacks.

    Raises ValueError for a name there is no method of.
    """
    if name not in METHODS:
        raise ValueError(f'method "{name}" unknown: choose from {", ".join(METHODS)}')
    return METHODS[name].with_attack(attack)
