"""FLOPs of whatever runs inside: forward, backward, gradients of images alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry


class FlopCounter(TorchDispatchMode):
    """Adds up in `flops` what runs inside, a multiplication and an addition counting two.

    Counts convolutions and matrix products: of linear layers, of attention, of their gradients,
    each by torch's formula where it is right. Every gradient of a convolution that autograd asks
    for costs what its forward pass does, whatever the groups; so frozen weights, images that need
    a gradient and recomputed layers count as they run. Not counted: what works number by number
    (normalisation, activations, pooling, losses, optimisers, the sign and clipping of an attack).
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator, and count it."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def _convolution_backward(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    _bias_sizes: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """The forward pass's FLOPs, once for the inputs' gradient and once for the weights'.

    torch's own formula leaves the groups out, and counts a depthwise layer of 1,000 channels a
    thousand times.
    """
    images, kernels, outputs = (list(tensor.shape) for tensor in (inputs, weight, gradient))
    return conv_flop_count(images, kernels, outputs, transposed) * sum(output_mask[:2])


_FORMULAS: dict[Any, Any] = {
    **flop_registry,
    torch.ops.aten.convolution_backward: _convolution_backward,
}
