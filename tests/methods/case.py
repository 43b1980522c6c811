"""What the suites for all methods know of a method."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from advprop.config.attacks import TrainingAttackConfig
from advprop.methods.base import Method

ATTACK_CONFIG = TrainingAttackConfig.model_validate(
    {"threat_model": {"epsilon": 8 / 255}, "num_steps": 2, "step_size": 6 / 255}
)
ATTACK = ATTACK_CONFIG.build()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method, and what the suites have to know of it (see docs/write_a_method.md)."""

    method: Method
    progress: float = 0.0
    draws: bool | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    own_losses: tuple[str, ...] = ()
    asks: str = ""
    without_gradients: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)
    averages: bool = False
    largest: float = 8 / 255
    statistics: Mapping[str, int] = field(default_factory=dict)
    forwards: int = 1
    backwards: int = 1
    exchanges: bool = False
    unused: bool = False
    distributed: bool = False
