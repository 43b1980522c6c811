"""Counts FLOPs of forward passes, backward passes and input gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry


class FlopCounter(TorchDispatchMode):
    """Context manager that adds the FLOPs of all operators to `flops`.

    A multiplication and an addition count as two FLOPs. Counts convolutions and matrix products
    (linear layers, attention, their gradients) by torch's formulas. Each gradient of a convolution
    that autograd computes costs as much as the forward pass, also with groups; thus frozen weights,
    input gradients and recomputed layers are counted correctly. Elementwise work (normalisation,
    activations, pooling, losses, optimisers, the sign and clipping of an attack) is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator and count its FLOPs."""
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
    """Return the FLOPs of the forward pass, for each of the input and weight gradients computed.

    torch's own formula ignores groups, so it counts a depthwise layer with 1,000 channels 1,000
    times.
    """
    images, kernels, outputs = (list(tensor.shape) for tensor in (inputs, weight, gradient))
    return conv_flop_count(images, kernels, outputs, transposed) * sum(output_mask[:2])


_FORMULAS: dict[Any, Any] = {
    **flop_registry,
    torch.ops.aten.convolution_backward: _convolution_backward,
}
