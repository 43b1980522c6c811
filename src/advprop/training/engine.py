"""Devices, precision, compilation: what happens to a model before it is trained."""

from __future__ import annotations

import os
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from advprop.models.standardize import Standardized
from advprop.training.optim import freeze_layers
from advprop.training.processes import join_processes
from advprop.training.settings import TrainingSettings

# branches, modes and gradient states multiply, and each needs a program of its own
_PROGRAMS = 64


def build_accelerator(settings: TrainingSettings) -> Accelerator:
    """The process's device and precision, and its fellows if `torchrun` started it.

    Raises ValueError for a precision that the device has not, and for processes that cannot meet.
    """
    if AcceleratorState._shared_state:
        # a second run in one process may use another precision
        AcceleratorState._reset_state()
    on_cpu = not torch.accelerator.is_available()
    if on_cpu and settings.mixed_precision == "fp16":
        raise ValueError("mixed_precision fp16 needs a GPU, there is none here: take bf16 or no")
    if not join_processes(on_cpu=on_cpu):
        # accelerate would open a group of one process, at an address that may be taken
        os.environ.pop("LOCAL_RANK", None)
    # without cpu=True, processes that torchrun starts on a CPU would not know of each other
    return Accelerator(cpu=on_cpu, mixed_precision=settings.mixed_precision)


def memory_format(settings: TrainingSettings) -> torch.memory_format:
    """The layout of images and weights."""
    return torch.channels_last if settings.channels_last else torch.contiguous_format


def prepare_model(model: nn.Module, settings: TrainingSettings, device: torch.device) -> nn.Module:
    """`model` on its device, layers frozen and activation checkpointing on as `settings` say.

    Raises ValueError for what the model cannot do.
    """
    freeze_layers(model, settings.frozen_layers)
    if settings.activation_checkpointing:
        _checkpoint_activations(model)
    placed = model.to(device, memory_format=memory_format(settings))  # type: ignore[call-overload]
    return cast("nn.Module", placed)


def distribute(model: nn.Module, settings: TrainingSettings, accelerator: Accelerator) -> nn.Module:
    """`model` compiled, in its precision, and with DistributedDataParallel on several processes."""
    if settings.compile:
        compile_model(model)
    # accelerate's own wrapper would come in a group of one process too, and take LOCAL_RANK for
    # the number of a GPU that a process with one of its own does not see
    prepared = cast("nn.Module", accelerator.prepare_model(model, evaluation_mode=True))
    if accelerator.num_processes == 1:
        return prepared
    shared = DistributedDataParallel(prepared)
    _settle_buckets(shared)
    return shared


def _settle_buckets(model: DistributedDataParallel) -> None:
    """Have `model` arrange its buckets of gradients before the first step, not after it.

    It does so once, in the order of its first backward pass. Three and more processes add up in
    another order then, and a resumed run has its first backward pass elsewhere. This one knows
    nothing of images: it reaches each parameter, the last first, as those of training mostly do.
    """
    model.reducer.prepare_for_backward([])
    sums = [parameter.sum() for parameter in model.parameters() if parameter.requires_grad]
    torch.stack(sums).sum().backward()
    model.zero_grad(set_to_none=True)


def build_average(model: nn.Module, settings: TrainingSettings) -> ModelEmaV3 | None:
    """The average of weights and statistics that `settings` ask for."""
    if settings.ema_decay is None:
        return None
    return ModelEmaV3(model, decay=settings.ema_decay, use_warmup=settings.ema_warmup)


def compile_model(model: nn.Module) -> None:
    """Let `torch.compile` work on `model` in place, so that keys of its weights stay."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PROGRAMS)
    model.compile()


def _checkpoint_activations(model: nn.Module) -> None:
    plain = model.model if isinstance(model, Standardized) else model
    try:
        plain.set_grad_checkpointing(True)  # type: ignore[operator]  # of timm's models
    except (AttributeError, AssertionError):
        raise ValueError(
            f"activation_checkpointing: {type(plain).__name__} cannot do it; leave it out, or "
            "take more gradient_accumulation"
        ) from None
