"""The running statistics of normalisation layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from timm.layers import FrozenBatchNormAct2d
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torchvision.ops import FrozenBatchNorm2d

from advprop.auxiliary.route import Branched

_FROZEN = (FrozenBatchNorm2d, FrozenBatchNormAct2d)


def running_statistics(layer: nn.Module) -> dict[str, Tensor]:
    """Return the buffers of `layer` itself that training mode updates, by name."""
    if isinstance(layer, _FROZEN):
        return {}
    return {
        name: buffer
        for name, buffer in layer._buffers.items()
        if buffer is not None and (name.startswith("running_") or name == "num_batches_tracked")
    }


def copies_of(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return a copy of each tensor; on a GPU a few kernels copy all of one type."""
    copies = [torch.empty_like(tensor) for tensor in tensors]
    for kind in {tensor.dtype for tensor in tensors}:
        torch._foreach_copy_(
            [copy for copy in copies if copy.dtype == kind],
            [tensor for tensor in tensors if tensor.dtype == kind],
        )
    return copies


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let training mode update copies of the running statistics, discarded on exit."""
    kept = [(layer, running_statistics(layer)) for layer in module.modules()]
    buffers = [buffer for _, statistics in kept for buffer in statistics.values()]
    copies = iter(copies_of(buffers))
    try:
        for layer, statistics in kept:
            layer._buffers.update({name: next(copies) for name in statistics})
        yield
    finally:
        for layer, statistics in kept:
            layer._buffers.update(statistics)


def has_shared_statistics(model: nn.Module) -> bool:
    """Return whether several branches use the running statistics of a layer of `model`."""
    users: dict[Tensor, set[str]] = {}
    for layer in model.modules():
        if isinstance(layer, Branched):
            for name, branch in layer.branches.items():
                for statistic in _statistics(branch):
                    users.setdefault(statistic, set()).add(name)
    return any(len(users.get(statistic, ())) != 1 for statistic in _statistics(model))


def _statistics(module: nn.Module) -> Iterator[Tensor]:
    for layer in module.modules():
        yield from running_statistics(layer).values()


def keep_statistics(model: nn.Module) -> None:
    """Keep DistributedDataParallel from broadcasting buffers before its next forward pass.

    It has broadcast them before the step's first pass, whose backward pass would fail if they
    changed (torch 2.6 to 2.10, pytorch/pytorch#175024).
    """
    if isinstance(model, DistributedDataParallel):
        model.require_forward_param_sync = False
