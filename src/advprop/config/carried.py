"""`Carried` and `AdvPropLean` as data."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import model_validator

from advprop.config.attacks import PAPER_ATTACK, AnyAttackConfig, OneStepConfig
from advprop.config.fields import Config
from advprop.methods.advprop_lean import AdvPropLean
from advprop.methods.base import Method
from advprop.methods.carried import Carried
from advprop.methods.learning import Form
from advprop.methods.perturbation_store import Precision


class CarryingConfig(Config):
    """What both have; the attack has a threat model and a step size, and nothing else to choose."""

    attack: OneStepConfig
    pairing: Literal["paired", "decoupled"] = "paired"
    attacked_fraction: float = 0.5
    auxiliary_branch: bool = True
    start: Literal["random", "zero"] = "random"
    precision: Precision | None = None
    form: Form = "auto"

    @model_validator(mode="after")
    def _valid(self) -> Self:
        Carried(**self.settings())
        return self

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> Self:
        """The defaults with this attack's threat model, and single steps in it."""
        return cls(attack=OneStepConfig(threat_model=(attack or PAPER_ATTACK).threat_model))

    def settings(self) -> dict[str, Any]:
        """The method's settings by name."""
        return {
            "threat_model": self.attack.threat_model.build(),
            "step_size": self.attack.step_size,
            "pairing": self.pairing,
            "attacked_fraction": self.attacked_fraction,
            "auxiliary_branch": self.auxiliary_branch,
            "start": self.start,
            "precision": self.precision,
            "form": self.form,
        }


class CarriedConfig(CarryingConfig):
    """`Carried`."""

    kind: Literal["carried"] = "carried"

    def build(self) -> Method:
        """Build the method."""
        return Carried(**self.settings())


class AdvPropLeanConfig(CarryingConfig):
    """`AdvPropLean`."""

    kind: Literal["advprop_lean"] = "advprop_lean"
    pairing: Literal["paired", "decoupled"] = "decoupled"
    attacked_fraction: float = 0.25
    auxiliary_branch: bool = False

    def build(self) -> Method:
        """Build the method."""
        return AdvPropLean(**self.settings())
