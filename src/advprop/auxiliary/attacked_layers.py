"""The layers of a model while it is attacked: some have quicker gradients of images alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from timm.layers import BatchNormAct2d
from timm.layers.conv2d_same import Conv2dSame
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from advprop.auxiliary.image_gradient import MOST_CHANNELS, conv2d
from advprop.auxiliary.norm_gradient import batch_norm

_QUICKER = {F.conv2d: conv2d, F.batch_norm: batch_norm}


class _QuickGradients(TorchFunctionMode):
    """What a layer computes by torch's functions is the same, their gradients quicker."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return _QUICKER.get(func, func)(*args, **kwargs or {})


class _Attacked(nn.Module):
    """A layer in an attack: its own `forward`, with quicker gradients inside."""

    plain: ClassVar[type[nn.Module]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's own."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        with _QuickGradients():
            return super().forward(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        # a copy made in an attack would never be put back; pickle lets protocol 1 change the class
        reduced: Any = super().__reduce_ex__(1)
        make, (_, *arguments), *state = reduced
        return make, (self.plain, *arguments), *state


_ATTACKED: dict[type[nn.Module], type[nn.Module]] = {
    plain: type(plain.__name__, (_Attacked, plain), {"plain": plain, "__module__": __name__})
    for plain in (nn.Conv2d, Conv2dSame, nn.BatchNorm2d, BatchNormAct2d)
}


@contextmanager
def attacked_layers(model: nn.Module) -> Iterator[None]:
    """Give layers of `model` classes with the same output and a quicker gradient inside.

    On a CPU only, and layers of exactly these types: what others have changed is left alone, and so
    is a model that `torch.compile` works on.
    """
    found = [] if _is_compiled(model) else [layer for layer in model.modules() if _gains(layer)]
    kept = [type(layer) for layer in found]
    try:
        for layer, plain in zip(found, kept, strict=True):
            layer.__class__ = _ATTACKED[plain]
        yield
    finally:
        for layer, plain in zip(found, kept, strict=True):
            layer.__class__ = plain


def _gains(layer: nn.Module) -> bool:
    if type(layer) not in _ATTACKED or (
        isinstance(layer, nn.Conv2d) and layer.in_channels > MOST_CHANNELS
    ):
        return False
    tensors = [*layer._parameters.values(), *layer._buffers.values()]
    return all(tensor.device.type == "cpu" for tensor in tensors if tensor is not None)


def _is_compiled(model: nn.Module) -> bool:
    """By its own `compile`, or by `torch.compile`, whose wrapper holds it as `_orig_mod`."""
    return any(
        layer._compiled_call_impl is not None or "_orig_mod" in layer._modules
        for layer in model.modules()
    )
