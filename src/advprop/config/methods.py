"""Training methods as data, and the registry of them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias, Union

from pydantic import Field

from advprop.config.attacks import AnyAttackConfig, TrainingAttackConfig
from advprop.config.carried import AdvPropLeanConfig, CarriedConfig
from advprop.config.method_base import AttackingConfig, MethodConfig, OneStepAttackingConfig
from advprop.config.pyramid import PyramidConfig, UniversalConfig
from advprop.methods.adversarial import Adversarial
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.augmix import AugMix
from advprop.methods.base import Method
from advprop.methods.fast import Fast
from advprop.methods.fine_grained import FineGrained
from advprop.methods.learning import Form
from advprop.methods.mixed import Mixed
from advprop.methods.sam import SAM
from advprop.methods.vanilla import Vanilla


class VanillaConfig(MethodConfig):
    """`Vanilla`."""

    builds = Vanilla
    kind: Literal["vanilla"] = "vanilla"


class AdversarialConfig(AttackingConfig):
    """`Adversarial`."""

    builds = Adversarial
    kind: Literal["adversarial"] = "adversarial"


class MixedConfig(AttackingConfig):
    """`Mixed`."""

    builds = Mixed
    kind: Literal["mixed"] = "mixed"


class AdvPropConfig(AttackingConfig):
    """`AdvProp`."""

    removed: ClassVar[Mapping[str, object]] = {"stale_steps": 0, "attack_every": 1}

    builds = AdvProp
    kind: Literal["advprop"] = "advprop"
    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    form: Form = "auto"
    matched_masks: bool = False


class FineGrainedConfig(AttackingConfig):
    """`FineGrained`: `attack` for the branch "adversarial", and what else the method learns from.

    `noise` adds a branch for images under random noise of the attack's size; `attacks` and `views`
    are further branches by name, the latter augmented as `data.views` has them.
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
    """`AdversarialThenClean`."""

    builds = AdversarialThenClean
    kind: Literal["adversarial_then_clean"] = "adversarial_then_clean"
    adversarial_share: float = 0.5


class FastConfig(OneStepAttackingConfig):
    """`Fast`."""

    builds = Fast
    kind: Literal["fast"] = "fast"
    attacked_fraction: float = 0.2
    beta: float = 0.5
    synchronise: bool = True
    form: Form = "auto"


class SAMConfig(MethodConfig):
    """`SAM`."""

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
    CarriedConfig,
    AdvPropLeanConfig,
    SAMConfig,
    AugMixConfig,
)
"""Every method. The command line, comparisons, cards, and the suites that all methods pass are
derived from it."""

METHODS: dict[str, type[MethodConfig]] = {config.name(): config for config in REGISTRY}

if TYPE_CHECKING:
    AnyMethodConfig: TypeAlias = MethodConfig
else:
    AnyMethodConfig = Annotated[Union[REGISTRY], Field(discriminator="kind")]  # noqa: UP007


def method_config(name: str, attack: AnyAttackConfig | None = None) -> MethodConfig:
    """The method called `name` with its defaults, and as strong as this attack if it attacks.

    `fast`, `carried` and `advprop_lean` take the threat model alone, and single steps of their own.
    Raises ValueError for a name there is no method of.
    """
    if name not in METHODS:
        raise ValueError(f'method "{name}" unknown: choose from {", ".join(METHODS)}')
    return METHODS[name].with_attack(attack)
