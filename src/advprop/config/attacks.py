"""Configurations of threat models and attacks, and the bases of methods that have one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeAlias

from advprop.attacks.objectives import (
    TargetRule,
    least_likely_class,
    random_other_class,
    untargeted,
)
from advprop.attacks.pgd import PGD, Attack
from advprop.attacks.schedule import GrowingSteps
from advprop.attacks.threat_models import L2, Linf, ThreatModel
from advprop.config.fields import Buildable, Built, Config, Fraction
from advprop.methods.base import Method

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
        """Build the threat model."""
        return Linf(self.epsilon) if self.kind == "linf" else L2(self.epsilon)


class Targeted(Buildable[Built]):
    """The base of attacks that name the rule for their targets."""

    if TYPE_CHECKING:
        targets: TargetName

    def settings(self) -> dict[str, Any]:
        """Return the settings with the target rule instead of its name."""
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
        """Build the attack."""
        settings = self.settings()
        first_steps = settings.pop("first_steps")
        attack = PGD(**settings)
        if first_steps is None:
            return attack
        return GrowingSteps(attack=attack, first_steps=first_steps)


class OneStepConfig(Config):
    """The attack of `Fast` and `Carried`: one untargeted step along a training pass's gradient.

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


class MethodConfig(Buildable[Method]):
    """The base of all methods' configurations.

    A subclass sets `builds` and the field `kind: Literal["sam"] = "sam"`, its name in `--method`.
    """

    if TYPE_CHECKING:
        kind: str

    @classmethod
    def name(cls) -> str:
        """Return the `kind` of this configuration."""
        return str(cls.model_fields["kind"].default)

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> Self:
        """Return the defaults with the strength of `attack` (None: the paper's), if it attacks."""
        return cls.model_validate({})

    @property
    def strength(self) -> AnyAttackConfig | None:
        """The attack whose strength another method can take over, or None."""
        return None


class AttackingConfig(MethodConfig):
    """The base of methods with an `attack` of their own."""

    attack: TrainingAttackConfig

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> Self:
        """Return the defaults with `attack`, or with the paper's attack if None."""
        whole = (attack or PAPER_ATTACK).as_pgd()
        return cls.model_validate({"attack": whole.model_dump()})

    @property
    def strength(self) -> AnyAttackConfig | None:
        """The whole attack."""
        return self.attack


class OneStepAttackingConfig(MethodConfig):
    """The base of methods that attack with a training pass's own gradient.

    The attack's only settings are a threat model and a step size.
    """

    attack: OneStepConfig

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> Self:
        """Return the defaults with the threat model of `attack`, or of the paper's if None."""
        one_step = OneStepConfig(threat_model=(attack or PAPER_ATTACK).threat_model)
        return cls.model_validate({"attack": one_step.model_dump()})

    @property
    def strength(self) -> AnyAttackConfig | None:
        """The single step."""
        return self.attack

    def settings(self) -> dict[str, Any]:
        """Return the settings with the attack's two settings in place of `attack`."""
        others = {name: value for name, value in super().settings().items() if name != "attack"}
        model = self.attack.threat_model.build()
        return {"threat_model": model, "step_size": self.attack.step_size, **others}
