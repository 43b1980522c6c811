"""Devices, precision, compilation: what happens to a model before it is trained."""

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

# branches, modes and gradient states multiply, and each needs a program of its own
_PROGRAMS = 64
# variables by which `accelerate launch` asks for what its own objects would do
_PLUGINS = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "a model divided over devices",
}
_LAUNCHER_SETTINGS = {
    "ACCELERATE_MIXED_PRECISION": ("no", "mixed_precision"),
    "ACCELERATE_DYNAMO_BACKEND": ("no", "compile"),
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": ("1", "gradient_accumulation"),
}


def build_accelerator(settings: TrainingSettings) -> Accelerator:
    """The process's device and precision, and its fellows if `torchrun` started it.

    Raises ValueError for a precision that the device has not, for processes that cannot meet, and
    for what accelerate's environment variables ask for beyond DistributedDataParallel.
    """
    _check_launcher(settings)
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


def _check_launcher(settings: TrainingSettings) -> None:
    """Raise ValueError where accelerate would do what this training does not know of."""
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
        compile_model(model, mode=None if settings.compile is True else settings.compile)
    # accelerate's own wrapper would come in a group of one process too, and take LOCAL_RANK for
    # the number of a GPU that a process with one of its own does not see
    prepared = cast("nn.Module", accelerator.prepare_model(model, evaluation_mode=True))
    if accelerator.num_processes == 1:
        return prepared
    # statistics are averaged after each step (`average_statistics`), and nothing else changes
    shared = DistributedDataParallel(prepared, broadcast_buffers=False)
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


def build_average(model: nn.Module, settings: TrainingSettings) -> WeightAverage | None:
    """The average of weights and statistics that `settings` ask for."""
    if settings.ema_decay is None:
        return None
    return WeightAverage(model, decay=settings.ema_decay, use_warmup=settings.ema_warmup)


def compile_model(model: nn.Module, *, mode: CompileMode | None = None) -> None:
    """Let `torch.compile` work on `model` in place, so that keys of its weights stay."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _PROGRAMS)
    model.compile(mode=mode)


def _checkpoint_activations(model: nn.Module) -> None:
    plain = model.model if isinstance(model, Standardized) else model
    try:
        plain.set_grad_checkpointing(True)  # type: ignore[operator]  # of timm's models
    except (AttributeError, AssertionError):
        raise ValueError(
            f"activation_checkpointing: {type(plain).__name__} cannot do it; leave it out, or "
            "take more gradient_accumulation"
        ) from None
