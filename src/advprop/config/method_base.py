"""What the configuration of every training method has."""

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
    """The base of them all: a `Buildable` whose subclass names its `kind`, too.

    `kind` is a field, `kind: Literal["sam"] = "sam"`, and what `--method` takes.
    """

    if TYPE_CHECKING:
        kind: str

    @classmethod
    def name(cls) -> str:
        """Its `kind`."""
        return str(cls.model_fields["kind"].default)

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> Self:
        """The defaults, and as strong as `attack` (None: as the paper's) if the method attacks."""
        return cls.model_validate({})

    @property
    def strength(self) -> AnyAttackConfig | None:
        """The attack whose strength another method can take over."""
        return None


class AttackingConfig(MethodConfig):
    """The base of methods with an `attack` of their own."""

    attack: TrainingAttackConfig

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> Self:
        """The defaults with this attack, or the paper's."""
        whole = (attack or PAPER_ATTACK).as_pgd()
        return cls.model_validate({"attack": whole.model_dump()})

    @property
    def strength(self) -> AnyAttackConfig | None:
        """The whole attack."""
        return self.attack


class OneStepAttackingConfig(MethodConfig):
    """The base of methods that attack by a training pass's own gradient.

    The attack has a threat model and a step size, and nothing else to choose.
    """

    attack: OneStepConfig

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> Self:
        """The defaults with this attack's threat model, and single steps in it."""
        one_step = OneStepConfig(threat_model=(attack or PAPER_ATTACK).threat_model)
        return cls.model_validate({"attack": one_step.model_dump()})

    @property
    def strength(self) -> AnyAttackConfig | None:
        """The single step."""
        return self.attack

    def settings(self) -> dict[str, Any]:
        """The attack's two settings in its place."""
        others = {name: value for name, value in super().settings().items() if name != "attack"}
        model = self.attack.threat_model.build()
        return {"threat_model": model, "step_size": self.attack.step_size, **others}
