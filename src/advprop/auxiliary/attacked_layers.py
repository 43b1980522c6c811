"""The layers of a model while it is attacked: some have quicker gradients of images alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from timm.layers import BatchNormAct2d
from torch import nn

from advprop.auxiliary.image_gradient import ImageConv2d, takes_images
from advprop.auxiliary.norm_gradient import FrozenBatchNorm2d, FrozenBatchNormAct2d

_ATTACKED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: ImageConv2d,
    nn.BatchNorm2d: FrozenBatchNorm2d,
    BatchNormAct2d: FrozenBatchNormAct2d,
}


@contextmanager
def attacked_layers(model: nn.Module) -> Iterator[None]:
    """Give layers of `model` classes with the same output and a quicker gradient inside.

    Layers of exactly these types only: what others have changed is left alone.
    """
    found = [
        (layer, type(layer))
        for layer in model.modules()
        if type(layer) in _ATTACKED and (not isinstance(layer, nn.Conv2d) or takes_images(layer))
    ]
    try:
        for layer, plain in found:
            layer.__class__ = _ATTACKED[plain]
        yield
    finally:
        for layer, plain in found:
            layer.__class__ = plain
