"""What the configuration of every training method has."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from advprop.config.attacks import (
    PAPER_ATTACK,
    AnyAttackConfig,
    OneStepConfig,
    TrainingAttackConfig,
)
from advprop.config.fields import Config
from advprop.methods.base import Method


class MethodConfig(Config, ABC):
    """The base of them all: a subclass names its `kind`, its `method`, and the settings of both.

    `kind` is a field, `kind: Literal["sam"] = "sam"`, and what `--method` takes; `method` is the
    class that is built of all other fields, which bear the names of its own. Bounds are checked by
    the method itself, which every configuration builds on the spot.
    """

    if TYPE_CHECKING:
        kind: str
    method: ClassVar[type[Method]]

    @model_validator(mode="after")
    def _valid(self) -> Self:
        self.build()
        return self

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

    def settings(self) -> dict[str, Any]:
        """What the method is made of, by name."""
        return {name: getattr(self, name) for name in type(self).model_fields if name != "kind"}

    def build(self) -> Method:
        """Build the method."""
        return self.method(**self.settings())


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

    def settings(self) -> dict[str, Any]:
        """The attack built."""
        return {**super().settings(), "attack": self.attack.build_for_training()}


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
