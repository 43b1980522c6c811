"""Prepares a model for training: device, precision, compilation, several processes."""

from __future__ import annotations

import os
from typing import cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from advprop.models.standardize import Standardized
from advprop.training.average import WeightAverage
from advprop.training.optim import freeze_layers
from advprop.training.processes import join_processes
from advprop.training.settings import CompileMode, TrainingSettings

# each combination of branch, mode and gradient state needs its own compiled program
_PROGRAMS = 64
# environment variables by which `accelerate launch` requests what this package does not support
_PLUGINS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a model divided over devices",
}
# its variables that must not contradict a run: (the value without effect, the run's setting)
_LAUNCHER_SETTINGS = {
    "ACCELERATE_MIXED_PRECISION": ("no", "mixed_precision"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "compile"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "gradient_accumulation"),
}


def build_accelerator(settings: TrainingSettings) -> Accelerator:
    """Return this process's accelerator, connected to other processes if `torchrun` started them.

    Raises ValueError if the device does not support the precision, the processes cannot connect, or
    environment variables of `accelerate launch` contradict `settings` or request more than
    DistributedDataParallel.
    """
    _check_launcher(settings)
    if AcceleratorState._shared_state:
        # a second run in one process may use another precision
        AcceleratorState._reset_state()
    on_cpu = not torch.accelerator.is_available()
    if on_cpu and settings.mixed_precision == "fp16":
        raise ValueError("mixed_precision fp16 needs a GPU, there is none here: take bf16 or no")
    if not join_processes(on_cpu=on_cpu):
        # accelerate would open a group of one process, at an address that may be in use
        os.environ.pop("LOCAL_RANK", None)
    # without cpu=True, processes that torchrun starts on a CPU would not know of each other
    return Accelerator(cpu=on_cpu, mixed_precision=settings.mixed_precision)


def _check_launcher(settings: TrainingSettings) -> None:
    """Raise ValueError if accelerate's variables contradict `settings` or are not supported."""
    given = {name: value.strip().lower() for name, value in os.environ.items()}
    for name, plugin in _PLUGINS.items():
        if given.get(name, "false") not in ("false", "0", "no", ""):
            raise ValueError(
                f"{name}={os.environ[name]}: {plugin} does not work here yet, several devices are "
                f"used by DistributedDataParallel alone: unset {name}, or start with torchrun"
            )
    for name, (idle, setting) in _LAUNCHER_SETTINGS.items():
        value, own = given.get(name, idle), getattr(settings, setting)
        if value not in (idle, str(own).lower()):
            raise ValueError(
                f"{name}={os.environ[name]}, but training.{setting} is {own}: settings of a run "
                f"are its own; set training.{setting}, and unset {name}"
            )


def memory_format(settings: TrainingSettings) -> torch.memory_format:
    """Return the memory format of images and weights."""
    return torch.channels_last if settings.channels_last else torch.contiguous_format


def prepare_model(model: nn.Module, settings: TrainingSettings, device: torch.device) -> nn.Module:
    """Return `model` on `device`, with frozen layers and activation checkpointing by `settings`.

    The model itself changes. Raises ValueError if it does not support one of these.
    """
    freeze_layers(model, settings.frozen_layers)
    if settings.activation_checkpointing:
        _checkpoint_activations(model)
    placed = model.to(device, memory_format=memory_format(settings))  # type: ignore[call-overload]
    return cast("nn.Module", placed)


def distribute(model: nn.Module, settings: TrainingSettings, accelerator: Accelerator) -> nn.Module:
    """Return `model` compiled, in mixed precision and in DistributedDataParallel, where needed."""
    if settings.compile:
        compile_model(model, mode=None if settings.compile is True else settings.compile)
    # in training mode accelerate would wrap the model even for one process, and take LOCAL_RANK as
    # the number of a GPU, which is wrong if each process sees only one
    prepared = cast("nn.Module", accelerator.prepare_model(model, evaluation_mode=True))
    if accelerator.num_processes == 1:
        return prepared
    # `average_statistics` averages statistics after each step; other buffers do not change
    shared = DistributedDataParallel(prepared, broadcast_buffers=False)
    _settle_buckets(shared)
    return shared


def _settle_buckets(model: DistributedDataParallel) -> None:
    """Make DistributedDataParallel arrange its buckets of gradients before the first step.

    It arranges them once, by the order of its first backward pass, which changes the order of sums
    over three or more processes; a resumed run would do it at another step. This backward pass does
    not depend on images: it reaches each parameter, mostly in training's order, the last first.
    """
    model.reducer.prepare_for_backward([])
    sums = [parameter.sum() for parameter in model.parameters() if parameter.requires_grad]
    torch.stack(sums).sum().backward()
    model.zero_grad(set_to_none=True)


def build_average(model: nn.Module, settings: TrainingSettings) -> WeightAverage | None:
    """Return the average of weights and statistics, or None if `settings` do not request one."""
    if settings.ema_decay is None:
        return None
    return WeightAverage(model, decay=settings.ema_decay, use_warmup=settings.ema_warmup)


def compile_model(model: nn.Module, *, mode: CompileMode | None = None) -> None:
    """Compile `model` in place by `torch.compile`, which keeps the names of its weights."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PROGRAMS)
    model.compile(mode=mode)


def _checkpoint_activations(model: nn.Module) -> None:
    plain = model.model if isinstance(model, Standardized) else model
    try:
        plain.set_grad_checkpointing(True)  # type: ignore[operator]  # timm's models have it
    except (AttributeError, AssertionError):
        raise ValueError(
            f"activation_checkpointing: {type(plain).__name__} cannot do it; leave it out, or "
            "take more gradient_accumulation"
        ) from None
