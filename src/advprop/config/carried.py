"""Configurations of `Carried` and `AdvPropLean`."""

from __future__ import annotations

from typing import Literal

from advprop.config.method_base import OneStepAttackingConfig
from advprop.methods.advprop_lean import AdvPropLean
from advprop.methods.carried import Carried
from advprop.methods.kept.encoding import Precision
from advprop.methods.learning import Form


class CarriedConfig(OneStepAttackingConfig):
    """The configuration of `Carried`."""

    builds = Carried
    kind: Literal["carried"] = "carried"
    pairing: Literal["paired", "decoupled"] = "paired"
    attacked_fraction: float = 0.5
    auxiliary_branch: bool = True
    start: Literal["random", "zero"] = "random"
    precision: Precision | None = None
    form: Form = "auto"


class AdvPropLeanConfig(OneStepAttackingConfig):
    """The configuration of `AdvPropLean`."""

    builds = AdvPropLean
    kind: Literal["advprop_lean"] = "advprop_lean"
    pairing: Literal["paired", "decoupled"] = "decoupled"
    attacked_fraction: float = 0.25
    auxiliary_branch: bool = False
    start: Literal["random", "zero"] = "random"
    precision: Precision | None = None
    form: Form = "auto"
