"""The running statistics of normalisation layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from timm.layers import FrozenBatchNormAct2d
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

_FROZEN = (FrozenBatchNorm2d, FrozenBatchNormAct2d)


def running_statistics(layer: nn.Module) -> dict[str, Tensor]:
    """The buffers of `layer` itself that training mode updates, by name."""
    if isinstance(layer, _FROZEN):
        return {}
    return {
        name: buffer
        for name, buffer in layer._buffers.items()
        if buffer is not None and (name.startswith("running_") or name == "num_batches_tracked")
    }


@contextmanager
def frozen_statistics(module: nn.Module) -> Iterator[None]:
    """Let training mode write into copies of the running statistics, thrown away on exit."""
    kept = [(layer, running_statistics(layer)) for layer in module.modules()]
    try:
        for layer, statistics in kept:
            for name, buffer in statistics.items():
                layer._buffers[name] = buffer.clone()
        yield
    finally:
        for layer, statistics in kept:
            layer._buffers.update(statistics)
