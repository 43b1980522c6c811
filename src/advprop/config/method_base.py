"""The base classes of training methods' configurations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

from advprop.config.attacks import (
    PAPER_ATTACK,
    AnyAttackConfig,
    OneStepConfig,
    TrainingAttackConfig,
)
from advprop.config.fields import Buildable
from advprop.methods.base import Method


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
        """Return the defaults, with the strength of `attack` (None: the paper's) if it attacks."""
        return cls.model_validate({})

    @property
    def strength(self) -> AnyAttackConfig | None:
        """Return the attack whose strength another method can take over, or None."""
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
        """Return the whole attack."""
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
        """Return the single step."""
        return self.attack

    def settings(self) -> dict[str, Any]:
        """Return the settings with the attack's two settings in place of `attack`."""
        others = {name: value for name, value in super().settings().items() if name != "attack"}
        model = self.attack.threat_model.build()
        return {"threat_model": model, "step_size": self.attack.step_size, **others}
