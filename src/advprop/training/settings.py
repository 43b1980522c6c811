"""How long and how fast to train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of the optimiser, its schedule, and what is kept along the way.

    `optimizer` is a name that `timm.optim` knows (its "sgd" has Nesterov momentum, its "momentum"
    the ordinary one); `batch_size` counts clean images over all devices. The learning rate rises
    linearly for `warmup_epochs`, then follows `schedule`. `ema_decay` keeps an average of the
    weights, None none. Checkpoints are written at the end of every epoch, and every
    `checkpoint_every_steps` steps where given.

    Raises ValueError for values that cannot train.
    """

    # pydantic reads this when the class stands in a configuration: unknown names are errors
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    num_epochs: int
    batch_size: int
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    gradient_clip: float | None = None
    ema_decay: float | None = None
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = True
    checkpoint_every_steps: int | None = None
    evaluate_every_epochs: int = 1
    num_workers: int = 0

    def __post_init__(self) -> None:
        for name in ("num_epochs", "batch_size", "evaluate_every_epochs"):
            _at_least(name, getattr(self, name), 1)
        for name in ("momentum", "weight_decay", "warmup_epochs", "num_workers"):
            _at_least(name, getattr(self, name), 0)
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate {self.learning_rate}: give a number above 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing {self.label_smoothing}: give one in [0, 1)")
        if self.warmup_epochs > self.num_epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} exceeds num_epochs {self.num_epochs}: "
                "warm up for a part of training only"
            )
        self._check_optional()

    def _check_optional(self) -> None:
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(f"gradient_clip {self.gradient_clip}: a number above 0, or none")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"ema_decay {self.ema_decay}: one between 0 and 1, or none")
        if self.checkpoint_every_steps is not None:
            _at_least("checkpoint_every_steps", self.checkpoint_every_steps, 1)


def _at_least(name: str, value: float, bound: int) -> None:
    if not (math.isfinite(value) and value >= bound):
        raise ValueError(f"{name} {value}: give a number of at least {bound}")
