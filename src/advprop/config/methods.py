"""Training methods as data.

Bounds are checked by the parts themselves, which every configuration builds on the spot.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from advprop.config.attacks import (
    PAPER_ATTACK,
    AnyAttackConfig,
    OneStepConfig,
    TrainingAttackConfig,
)
from advprop.config.carried import AdvPropLeanConfig, CarriedConfig
from advprop.config.fields import Config
from advprop.config.pyramid import PyramidConfig, UniversalConfig
from advprop.methods.adversarial import Adversarial
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.fast import Fast
from advprop.methods.fine_grained import FineGrained
from advprop.methods.forms import Form, TwoPassForm
from advprop.methods.mixed import Mixed
from advprop.methods.vanilla import Vanilla


class VanillaConfig(Config):
    """`Vanilla`."""

    kind: Literal["vanilla"] = "vanilla"

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> VanillaConfig:
        """The only one there is."""
        return cls()

    def build(self) -> Method:
        """Build the method."""
        return Vanilla()


class _CheckedConfig(Config, ABC):
    @model_validator(mode="after")
    def _valid(self) -> _CheckedConfig:
        self.build()
        return self

    @abstractmethod
    def build(self) -> Method:
        """Build the method."""


class _AttackingConfig(_CheckedConfig):
    attack: TrainingAttackConfig

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> Self:
        """The defaults with this attack, or the paper's."""
        whole = attack.as_pgd() if isinstance(attack, OneStepConfig) else attack or PAPER_ATTACK
        return cls.model_validate({"attack": whole.model_dump()})


class AdversarialConfig(_AttackingConfig):
    """`Adversarial`."""

    kind: Literal["adversarial"] = "adversarial"

    def build(self) -> Method:
        """Build the method."""
        return Adversarial(attack=self.attack.build_for_training())


class MixedConfig(_AttackingConfig):
    """`Mixed`."""

    kind: Literal["mixed"] = "mixed"

    def build(self) -> Method:
        """Build the method."""
        return Mixed(attack=self.attack.build_for_training())


class AdvPropConfig(_AttackingConfig):
    """`AdvProp`."""

    removed: ClassVar[Mapping[str, object]] = {"stale_steps": 0, "attack_every": 1}

    kind: Literal["advprop"] = "advprop"
    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    form: TwoPassForm = "auto"
    matched_masks: bool = False

    def build(self) -> Method:
        """Build the method."""
        return AdvProp(
            attack=self.attack.build_for_training(),
            clean_weight=self.clean_weight,
            adversarial_weight=self.adversarial_weight,
            form=self.form,
            matched_masks=self.matched_masks,
        )


class FineGrainedConfig(_AttackingConfig):
    """`FineGrained`: `attack` for the branch "adversarial", and what else the method learns from.

    `noise` adds a branch for images under random noise of the attack's size; `attacks` and `views`
    are further branches by name, the latter augmented as `data.views` has them.
    """

    kind: Literal["fine_grained"] = "fine_grained"
    noise: bool = True
    attacks: dict[str, TrainingAttackConfig] = Field(default_factory=dict)
    views: tuple[str, ...] = ()
    form: Form = "auto"

    def build(self) -> Method:
        """Build the method."""
        attacks = {"adversarial": self.attack, **self.attacks}
        if self.noise:
            noise = {"num_steps": 0, "first_steps": None, "random_start_probability": 1.0}
            attacks = {"noise": self.attack.model_copy(update=noise), **attacks}
        return FineGrained(
            attacks={name: attack.build_for_training() for name, attack in attacks.items()},
            views=self.views,
            form=self.form,
        )


class AdversarialThenCleanConfig(_AttackingConfig):
    """`AdversarialThenClean`."""

    kind: Literal["adversarial_then_clean"] = "adversarial_then_clean"
    adversarial_share: float = 0.5

    def build(self) -> Method:
        """Build the method."""
        return AdversarialThenClean(
            attack=self.attack.build_for_training(), adversarial_share=self.adversarial_share
        )


class FastConfig(_CheckedConfig):
    """`Fast`; its attack has a threat model and a step size, and nothing else to choose."""

    kind: Literal["fast"] = "fast"
    attack: OneStepConfig
    attacked_fraction: float = 0.2
    beta: float = 0.5
    synchronise: bool = True
    form: Form = "auto"

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> FastConfig:
        """The defaults with this attack's threat model, and a single step in it."""
        return cls(attack=OneStepConfig(threat_model=(attack or PAPER_ATTACK).threat_model))

    def build(self) -> Method:
        """Build the method."""
        return Fast(
            threat_model=self.attack.threat_model.build(),
            step_size=self.attack.step_size,
            attacked_fraction=self.attacked_fraction,
            beta=self.beta,
            synchronise=self.synchronise,
            form=self.form,
        )


AnyMethodConfig: TypeAlias = (
    VanillaConfig
    | AdversarialConfig
    | MixedConfig
    | AdvPropConfig
    | AdversarialThenCleanConfig
    | FineGrainedConfig
    | FastConfig
    | PyramidConfig
    | UniversalConfig
    | CarriedConfig
    | AdvPropLeanConfig
)
MethodConfig = Annotated[AnyMethodConfig, Field(discriminator="kind")]

METHODS: dict[str, type[AnyMethodConfig]] = {
    "vanilla": VanillaConfig,
    "adversarial": AdversarialConfig,
    "mixed": MixedConfig,
    "advprop": AdvPropConfig,
    "adversarial_then_clean": AdversarialThenCleanConfig,
    "fine_grained": FineGrainedConfig,
    "fast": FastConfig,
    "pyramid": PyramidConfig,
    "universal": UniversalConfig,
    "carried": CarriedConfig,
    "advprop_lean": AdvPropLeanConfig,
}


def method_config(name: str, attack: AnyAttackConfig | None = None) -> MethodConfig:
    """The method called `name` with its defaults, and as strong as this attack if it attacks.

    `fast`, `carried` and `advprop_lean` take the threat model alone, and single steps of their own.
    Raises ValueError for a name there is no method of.
    """
    if name not in METHODS:
        raise ValueError(f'method "{name}" unknown: choose from {", ".join(METHODS)}')
    return METHODS[name].with_attack(attack)
