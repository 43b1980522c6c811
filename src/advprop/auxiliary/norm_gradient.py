"""The gradient through a BatchNorm with running statistics and frozen parameters: a factor.

torch's own formula reads the layer's input again, for which autograd keeps it. A factor for each
channel needs the gradient alone, and can be multiplied into that of a SiLU behind it in place.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advprop.auxiliary.quick_gradient import images_alone

FEWEST = 2**18
"""Values in a batch from which on the time saved exceeds that of a function in Python."""


class NormAndActivation:
    """`F.batch_norm` and, in the same layer, `F.silu`: the same bit for bit, with quick gradients.

    SiLU out of place, whatever is asked for: in place, autograd first copies its input. Behind the
    norm both gradients are one function, which needs no memory for what lies between.
    """

    def __init__(self) -> None:
        self._images: Tensor | None = None
        self._output: Tensor | None = None
        self._factor: Tensor | None = None

    def batch_norm(
        self,
        images: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """`F.batch_norm`, with the quick gradient where it is to be had."""
        tensors = (running_mean, running_var, weight, bias)
        quick = not training and running_var is not None and images.numel() >= FEWEST
        if not quick or not images_alone(images, *tensors):
            return F.batch_norm(images, *tensors, training, momentum, eps)
        assert running_var is not None
        self._factor = _factor(running_var, weight, eps)
        output: Tensor = _BatchNorm.apply(images, *tensors, self._factor, eps)
        self._images, self._output = images, output
        return output

    def silu(self, images: Tensor, inplace: bool = False) -> Tensor:
        """`F.silu`, of what `batch_norm` gave with one gradient for both."""
        if images is not self._output:
            return F.silu(images, inplace)
        output: Tensor = _SiLU.apply(self._images, images, self._factor)
        return output


def _factor(variance: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    # in single precision at least, as torch does, whatever the statistics and gradients have
    variance = variance.to(torch.promote_types(variance.dtype, torch.float32))
    factor = torch.rsqrt(variance + eps)
    return factor if weight is None else factor * weight


class _BatchNorm(torch.autograd.Function):
    """`batch_norm` in eval mode, differentiable by its input alone."""

    @staticmethod
    def forward(
        images: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        factor: Tensor,
        eps: float,
    ) -> Tensor:
        return F.batch_norm(images, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, *_, factor, _ = inputs
        ctx.dtype = images.dtype
        ctx.save_for_backward(factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = ctx.saved_tensors
        return (gradient * factor[:, None, None]).to(ctx.dtype), *[None] * 6


class _SiLU(torch.autograd.Function):
    """SiLU of what a norm made of `images`: the gradient of both, given to them at once."""

    @staticmethod
    def forward(images: Tensor, normalised: Tensor, factor: Tensor) -> Tensor:
        return F.silu(normalised)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, normalised, factor = inputs
        ctx.dtype = images.dtype
        ctx.save_for_backward(normalised, factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normalised, factor = ctx.saved_tensors
        if torch.is_grad_enabled():  # for gradients of this one, a formula that has some
            slope = torch.sigmoid(normalised)
            slope = slope * (1 + normalised * (1 - slope))
            return (gradient * slope * factor[:, None, None]).to(ctx.dtype), None, None
        inner = torch.ops.aten.silu_backward(gradient, normalised)
        if inner.dtype == factor.dtype:
            return inner.mul_(factor[:, None, None]), None, None
        return (inner * factor[:, None, None]).to(ctx.dtype), None, None
