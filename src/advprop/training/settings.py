"""The settings of training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

MOST_WORKERS = 1024  # processes that load images
CompileMode = Literal["reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"]
"""The modes of `torch.compile` besides its default."""


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings of the optimiser, its schedule, the engine, and the checkpoints.

    `optimizer` is a name that `timm.optim` knows (its "sgd" has Nesterov momentum, its "momentum"
    the ordinary one), with `optimizer_options`. `batch_size` counts clean images over all devices;
    they go through the model in `gradient_accumulation` parts, one after another. `layer_decay`
    multiplies the learning rate once for each group of layers below the last. `frozen_layers` is
    the number of groups whose weights are frozen (timm's coarse groups, the stem first; running
    statistics are still updated). `gradient_clip` is the largest norm of the gradients.

    The learning rate rises linearly for `warmup_epochs`, then follows `schedule`: "cosine",
    "constant", "staircase" (times `decay_rate` every `decay_epochs`) or "milestones" (times
    `decay_rate` at each of them, in epochs). `ema_decay` keeps an average of the weights (None: no
    average); with `ema_warmup`, the average of a short run forgets the initial weights, too.

    `compile` uses `torch.compile`, in its default mode (True) or another. `deterministic` makes
    torch use operations with the same results in each run, and reject others; `cudnn_benchmark`
    lets cuDNN search for the fastest convolution. `tf32` allows or forbids TF32 in float32
    convolutions and matrix products; None keeps torch's setting. `sync_batchnorm` normalises by
    the images of all processes; None does so on several GPUs if the method allows it.

    Checkpoints are written at the end of every epoch, and every `checkpoint_every_steps` steps or
    `checkpoint_every_minutes`; the last `keep_checkpoints` are kept. A loss that is not finite
    stops the run, or goes back to the last checkpoint at half the learning rate ("rollback").

    Raises ValueError for values out of bounds or in contradiction.
    """

    # pydantic reads this if the class is a field of a configuration: unknown names are errors
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    num_epochs: int
    batch_size: int
    gradient_accumulation: int = 1
    optimizer: str = "sgd"
    optimizer_options: dict[str, Any] = field(default_factory=dict)
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    layer_decay: float | None = None
    frozen_layers: int = 0
    schedule: Literal["cosine", "constant", "staircase", "milestones"] = "cosine"
    decay_rate: float = 0.1
    decay_epochs: float = 30.0
    milestones: tuple[float, ...] = ()
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.0
    gradient_clip: float | None = None
    ema_decay: float | None = None
    ema_warmup: bool = True
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    channels_last: bool = True
    compile: bool | CompileMode = False
    deterministic: bool = False
    cudnn_benchmark: bool = False
    tf32: bool | None = None
    sync_batchnorm: bool | None = None
    activation_checkpointing: bool = False
    checkpoint_every_steps: int | None = None
    checkpoint_every_minutes: float | None = None
    keep_checkpoints: int = 2
    not_finite: Literal["stop", "rollback"] = "stop"
    evaluate_every_epochs: int = 1
    num_workers: int = 0

    def __post_init__(self) -> None:
        for name in _FROM_ONE:
            _at_least(name, getattr(self, name), 1)
        for name in ("momentum", "weight_decay", "warmup_epochs", "num_workers", "frozen_layers"):
            _at_least(name, getattr(self, name), 0)
        if self.num_workers > MOST_WORKERS:
            raise ValueError(f"num_workers {self.num_workers}: give at most {MOST_WORKERS}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate {self.learning_rate}: give a number above 0")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing {self.label_smoothing}: give one in [0, 1)")
        if self.batch_size % self.gradient_accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} cannot be divided into gradient_accumulation "
                f"{self.gradient_accumulation} equal parts: take a multiple"
            )
        self._check_schedule()
        self._check_optional()

    def _check_schedule(self) -> None:
        if self.warmup_epochs > self.num_epochs:
            raise ValueError(
                f"warmup_epochs {self.warmup_epochs:g} exceeds num_epochs {self.num_epochs}: "
                "warm up for a part of training only"
            )
        if not 0 < self.decay_rate <= 1:
            raise ValueError(f"decay_rate {self.decay_rate}: give a number above 0, at most 1")
        if not (math.isfinite(self.decay_epochs) and self.decay_epochs > 0):
            raise ValueError(f"decay_epochs {self.decay_epochs}: give a number above 0")
        if list(self.milestones) != sorted(set(self.milestones)) or any(
            milestone <= 0 for milestone in self.milestones
        ):
            raise ValueError(f"milestones {self.milestones}: give rising epochs above 0")
        if (self.schedule == "milestones") != bool(self.milestones):
            raise ValueError(
                f'schedule "{self.schedule}" with milestones {list(self.milestones)}: '
                'give milestones with schedule "milestones", and only there'
            )

    def _check_optional(self) -> None:
        if self.deterministic and self.cudnn_benchmark:
            raise ValueError(
                "deterministic and cudnn_benchmark, which may choose other convolutions in each "
                "run: set one of them to false"
            )
        if self.gradient_clip is not None and not self.gradient_clip > 0:
            raise ValueError(f"gradient_clip {self.gradient_clip}: give a number above 0, or none")
        if self.checkpoint_every_steps is not None:
            _at_least("checkpoint_every_steps", self.checkpoint_every_steps, 1)
        minutes = self.checkpoint_every_minutes
        if minutes is not None and not (math.isfinite(minutes) and minutes > 0):
            raise ValueError(f"checkpoint_every_minutes {minutes}: give a number above 0, or none")
        for name in ("ema_decay", "layer_decay"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} {value}: give a number between 0 and 1, or none")


_FROM_ONE = (
    "num_epochs",
    "batch_size",
    "gradient_accumulation",
    "evaluate_every_epochs",
    "keep_checkpoints",
)


def _at_least(name: str, value: float, bound: int) -> None:
    if not (math.isfinite(value) and value >= bound):
        raise ValueError(f"{name} {value}: give a number of at least {bound}")
