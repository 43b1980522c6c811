"""`Carried` as data."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from advprop.config.attacks import PAPER_ATTACK, AnyAttackConfig, OneStepConfig
from advprop.config.fields import Config
from advprop.methods.base import Method
from advprop.methods.carried import Carried
from advprop.methods.forms import Form
from advprop.methods.perturbation_store import Precision


class CarriedConfig(Config):
    """`Carried`; its attack has a threat model and a step size, and nothing else to choose."""

    kind: Literal["carried"] = "carried"
    attack: OneStepConfig
    pairing: Literal["paired", "decoupled"] = "paired"
    attacked_fraction: float = 0.5
    auxiliary_branch: bool = True
    start: Literal["random", "zero"] = "random"
    precision: Precision | None = None
    form: Form = "auto"

    @model_validator(mode="after")
    def _valid(self) -> CarriedConfig:
        self.build()
        return self

    @classmethod
    def with_attack(cls, attack: AnyAttackConfig | None) -> CarriedConfig:
        """The defaults with this attack's threat model, and single steps in it."""
        return cls(attack=OneStepConfig(threat_model=(attack or PAPER_ATTACK).threat_model))

    def build(self) -> Method:
        """Build the method."""
        return Carried(
            threat_model=self.attack.threat_model.build(),
            step_size=self.attack.step_size,
            pairing=self.pairing,
            attacked_fraction=self.attacked_fraction,
            auxiliary_branch=self.auxiliary_branch,
            start=self.start,
            precision=self.precision,
            form=self.form,
        )
