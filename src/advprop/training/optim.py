"""Optimiser and learning-rate schedule, both timm's."""

from __future__ import annotations

from typing import Any

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from advprop.training.settings import TrainingSettings


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> Optimizer:
    """The optimiser over all parameters, those of every branch among them.

    Biases and the parameters of normalisation layers are not decayed. Raises ValueError for a
    name that timm does not know.
    """
    try:
        optimizer: Optimizer = create_optimizer_v2(
            model,
            opt=settings.optimizer,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            filter_bias_and_bn=True,
        )
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f'optimizer "{settings.optimizer}" cannot be built ({error}): '
            "timm.optim.list_optimizers() has the names, such as sgd, adamw, rmsproptf"
        ) from None
    return optimizer


def build_schedule(
    optimizer: Optimizer, settings: TrainingSettings, steps_per_epoch: int
) -> Scheduler:
    """A schedule counted in steps: a function of the step's number, with no state to save."""
    total = settings.num_epochs * steps_per_epoch
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    common: dict[str, Any] = {
        "t_in_epochs": False,
        "warmup_t": warmup,
        "warmup_lr_init": settings.learning_rate / max(1, warmup),
    }
    if settings.schedule == "cosine":
        return CosineLRScheduler(optimizer, t_initial=total, **common)
    return StepLRScheduler(optimizer, decay_t=total, decay_rate=1.0, **common)
