"""The gradient through a BatchNorm with running statistics and frozen parameters: a factor.

torch's own formula reads the layer's input again, for which autograd keeps it. A factor for each
channel needs the gradient alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advprop.auxiliary.quick_gradient import images_alone

FEWEST = 2**18
"""Values in a batch from which on the time saved exceeds that of a function in Python."""


def batch_norm(
    images: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`F.batch_norm`, the same bit for bit, with the quick gradient where it is to be had."""
    tensors = (running_mean, running_var, weight, bias)
    quick = not training and running_var is not None and images.numel() >= FEWEST
    if not quick or not images_alone(images, *tensors):
        return F.batch_norm(images, *tensors, training, momentum, eps)
    output: Tensor = _BatchNorm.apply(images, *tensors, eps)
    return output


class _BatchNorm(torch.autograd.Function):
    """`batch_norm` in eval mode, differentiable by its input alone."""

    @staticmethod
    def forward(
        images: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        return F.batch_norm(images, mean, variance, weight, bias, eps=eps)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, _, variance, weight, _, eps = inputs
        ctx.dtype = images.dtype
        # in single precision at least, as torch does, whatever the statistics and gradients have
        variance = variance.to(torch.promote_types(variance.dtype, torch.float32))
        factor = torch.rsqrt(variance + eps)
        ctx.save_for_backward(factor if weight is None else factor * weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = ctx.saved_tensors
        return (gradient * factor[:, None, None]).to(ctx.dtype), None, None, None, None, None
