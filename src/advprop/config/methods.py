"""Configurations of training methods, and the registry of all methods."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias, Union

from pydantic import BeforeValidator, Field

from advprop.config.attacks import AnyAttackConfig, TrainingAttackConfig
from advprop.config.fields import removed_text
from advprop.config.method_base import AttackingConfig, MethodConfig, OneStepAttackingConfig
from advprop.config.pyramid import PyramidConfig, UniversalConfig
from advprop.methods.adversarial import Adversarial
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.advprop_lean import AdvPropLean
from advprop.methods.augmix import AugMix
from advprop.methods.base import Method
from advprop.methods.fast import Fast
from advprop.methods.fine_grained import FineGrained
from advprop.methods.learning import Form
from advprop.methods.maxup import MaxUp
from advprop.methods.mixed import Mixed
from advprop.methods.sam import SAM
from advprop.methods.vanilla import Vanilla


class VanillaConfig(MethodConfig):
    """The configuration of `Vanilla`."""

    builds = Vanilla
    kind: Literal["vanilla"] = "vanilla"


class AdversarialConfig(AttackingConfig):
    """The configuration of `Adversarial`."""

    builds = Adversarial
    kind: Literal["adversarial"] = "adversarial"


class MixedConfig(AttackingConfig):
    """The configuration of `Mixed`."""

    builds = Mixed
    kind: Literal["mixed"] = "mixed"


class AdvPropConfig(AttackingConfig):
    """The configuration of `AdvProp`."""

    removed: ClassVar[Mapping[str, object]] = {"stale_steps": 0, "attack_every": 1}

    builds = AdvProp
    kind: Literal["advprop"] = "advprop"
    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    form: Form = "auto"
    matched_masks: bool = False


class FineGrainedConfig(AttackingConfig):
    """The configuration of `FineGrained`; `attack` is that of the branch "adversarial".

    `noise` adds a branch for images under random noise of the attack's size; `attacks` and `views`
    add further branches by name, the latter for images augmented by `data.views`.
    """

    builds = FineGrained
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
            attacks={name: attack.build() for name, attack in attacks.items()},
            views=self.views,
            form=self.form,
        )


class AdversarialThenCleanConfig(AttackingConfig):
    """The configuration of `AdversarialThenClean`."""

    builds = AdversarialThenClean
    kind: Literal["adversarial_then_clean"] = "adversarial_then_clean"
    adversarial_share: float = 0.5


class FastConfig(OneStepAttackingConfig):
    """The configuration of `Fast`."""

    builds = Fast
    kind: Literal["fast"] = "fast"
    attacked_fraction: float = 0.2
    beta: float = 0.5
    synchronise: bool = True
    form: Form = "auto"


class AdvPropLeanConfig(OneStepAttackingConfig):
    """The configuration of `AdvPropLean`."""

    removed: ClassVar[Mapping[str, object]] = {
        "pairing": "decoupled",
        "auxiliary_branch": False,
        "start": "random",
        "precision": None,
        "form": "auto",
    }
    removed_after = "242c495"

    builds = AdvPropLean
    kind: Literal["advprop_lean"] = "advprop_lean"
    attacked_fraction: float = 0.25


class SAMConfig(MethodConfig):
    """The configuration of `SAM`."""

    builds = SAM
    kind: Literal["sam"] = "sam"
    rho: float = 0.05
    every: int = 1


class AugMixConfig(MethodConfig):
    """`AugMix`."""

    builds = AugMix
    kind: Literal["augmix"] = "augmix"
    severity: float = 3.0
    width: int = 3
    depth: int | None = None
    alpha: float = 1.0
    jsd: float = 12.0


class MaxUpConfig(MethodConfig):
    """`MaxUp`."""

    builds = MaxUp
    kind: Literal["maxup"] = "maxup"
    draws: int = 4


REGISTRY: tuple[type[MethodConfig], ...] = (
    VanillaConfig,
    AdversarialConfig,
    MixedConfig,
    AdvPropConfig,
    AdversarialThenCleanConfig,
    FineGrainedConfig,
    FastConfig,
    PyramidConfig,
    UniversalConfig,
    AdvPropLeanConfig,
    SAMConfig,
    AugMixConfig,
    MaxUpConfig,
)
"""All methods; the command line, comparisons, cards and common tests are derived from it."""

METHODS: dict[str, type[MethodConfig]] = {config.name(): config for config in REGISTRY}


def _check_not_removed(name: object) -> None:
    if name == "carried":
        instead = "advprop_lean, the form of it that paid"
        raise ValueError(removed_text('method "carried"', instead, AdvPropLeanConfig.removed_after))


def _not_removed(settings: Any) -> Any:
    _check_not_removed(settings.get("kind") if isinstance(settings, dict) else None)
    return settings


if TYPE_CHECKING:
    AnyMethodConfig: TypeAlias = MethodConfig
else:
    AnyMethodConfig = Annotated[
        Union[REGISTRY], Field(discriminator="kind"), BeforeValidator(_not_removed)  # noqa: UP007
    ]


def method_config(name: str, attack: AnyAttackConfig | None = None) -> MethodConfig:
    """Return the configuration of method `name` with its defaults and the strength of `attack`.

    `fast` and `advprop_lean` take only its threat model and keep their single steps. Raises
    ValueError for an unknown name.
    """
    _check_not_removed(name)
    if name not in METHODS:
        raise ValueError(f'method "{name}" unknown: choose from {", ".join(METHODS)}')
    return METHODS[name].with_attack(attack)
