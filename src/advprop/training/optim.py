"""The optimiser, frozen layers and the learning-rate schedule, all from timm."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, StepLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn
from torch.optim import Optimizer

from advprop.models.standardize import Standardized
from advprop.randomness import kept_streams
from advprop.training.settings import TrainingSettings


def build_optimizer(model: nn.Module, settings: TrainingSettings) -> Optimizer:
    """Return the optimiser of all trainable parameters, including those of every branch.

    Biases and parameters of normalisation layers have no weight decay. Raises ValueError if timm
    does not know the optimiser or an option, the optimiser needs more than gradients to step, or
    layer decay is set and the model does not name its groups of layers.
    """
    # timm finds groups of layers by the plain model's parameter names
    plain = model.model if isinstance(model, Standardized) else model
    if settings.layer_decay is not None:
        _check_layers(plain, "layer_decay")
    named = f'optimizer "{settings.optimizer}" with {settings.optimizer_options}'
    try:
        create: Any = partial(
            create_optimizer_v2,
            opt=settings.optimizer,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            **{"momentum": settings.momentum, **settings.optimizer_options},
        )
        optimizer: Optimizer = create(
            plain, layer_decay=settings.layer_decay, filter_bias_and_bn=True
        )
    except (AssertionError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{named} cannot be built ({error}): timm.optim.list_optimizers() has the names, such "
            "as sgd, adamw, rmsproptf"
        ) from None
    device = next(model.parameters()).device
    weight = nn.Parameter(torch.ones(2, 2, device="cpu" if device.type == "meta" else device))
    try:
        weight.grad = torch.ones_like(weight)
        with kept_streams():  # some optimisers draw random numbers
            create([weight]).step()
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise ValueError(
            f"{named} needs more to step than gradients, such as their graph (create_graph) or a "
            f"closure ({str(error)[:200]}): take another, such as sgd, adamw, rmsproptf"
        ) from None
    return optimizer


def freeze_layers(model: nn.Module, count: int) -> None:
    """Freeze the weights of the first `count` groups of layers, in every branch.

    Raises ValueError if the model has at most `count` groups or does not name them.
    """
    if count == 0:
        return
    plain: Any = model.model if isinstance(model, Standardized) else model
    _check_layers(plain, "frozen_layers")
    groups: dict[int, list[str]] = group_parameters(plain, plain.group_matcher(coarse=True))
    if count >= len(groups):
        raise ValueError(
            f"frozen_layers {count}: the model has {len(groups)} groups of layers, the last of "
            "which must train"
        )
    parameters = dict(plain.named_parameters())
    for group in sorted(groups)[:count]:
        for name in groups[group]:
            if name in parameters:
                parameters[name].requires_grad_(False)


def build_schedule(
    optimizer: Optimizer, settings: TrainingSettings, steps_per_epoch: int
) -> Scheduler:
    """Return the learning-rate schedule, a function of the step number without state to save."""
    total = settings.num_epochs * steps_per_epoch
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    common: dict[str, Any] = {
        "t_in_epochs": False,
        "warmup_t": warmup,
        "warmup_lr_init": settings.learning_rate / max(1, warmup),
    }
    if settings.schedule == "cosine" and total > 1:  # timm warns for a single step
        return CosineLRScheduler(optimizer, t_initial=total, **common)
    # decay is counted from the first step, not from the end of the warm-up
    common["warmup_prefix"] = False
    if settings.schedule == "staircase":
        every = settings.decay_epochs * steps_per_epoch
        return StepLRScheduler(optimizer, decay_t=every, decay_rate=settings.decay_rate, **common)
    # timm applies a milestone one step early
    milestones = [round(epoch * steps_per_epoch) + 1 for epoch in settings.milestones]
    return MultiStepLRScheduler(
        optimizer, decay_t=milestones, decay_rate=settings.decay_rate, **common
    )


def set_learning_rate(schedule: Scheduler, step: int, rollbacks: int) -> None:
    """Set the learning rate of `step`, halved for each rollback to a checkpoint."""
    schedule.step_update(step)
    if rollbacks:
        for group in schedule.optimizer.param_groups:
            group["lr"] *= 0.5**rollbacks


def _check_layers(model: nn.Module, setting: str) -> None:
    if not hasattr(model, "group_matcher"):
        raise ValueError(
            f"{setting}: {type(model).__name__} does not name its groups of layers; "
            "models of timm do, leave the setting out for others"
        )
