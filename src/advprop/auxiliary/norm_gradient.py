"""The gradient through a BatchNorm with running statistics and frozen parameters: a factor.

torch's own formula reads the layer's input again, for which autograd keeps it. A factor for each
channel needs the gradient alone.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn import functional as F


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm in an attack; the output is the same bit for bit.

    Batch statistics, parameters that train, other devices than a CPU, and what `torch.compile`
    traces are left to torch.
    """

    def forward(self, images: Tensor) -> Tensor:
        """As `BatchNorm2d`."""
        if _is_a_factor(self, images):
            return _normalised(self, images)
        plain: Tensor = super().forward(images)
        return plain


class FrozenBatchNormAct2d(BatchNormAct2d):
    """The same for timm's layer, which drops and activates too."""

    def forward(self, images: Tensor) -> Tensor:
        """As `BatchNormAct2d`."""
        if _is_a_factor(self, images):
            activated: Tensor = self.act(self.drop(_normalised(self, images)))
            return activated
        plain: Tensor = super().forward(images)
        return plain


def _is_a_factor(layer: nn.BatchNorm2d, images: Tensor) -> bool:
    if torch.compiler.is_compiling() or not images.requires_grad:
        return False
    frozen = not any(p.requires_grad for p in (layer.weight, layer.bias) if p is not None)
    is_running = not layer.training and layer.running_var is not None
    return frozen and is_running and images.device.type == "cpu" and images.ndim == 4


def _normalised(layer: nn.BatchNorm2d, images: Tensor) -> Tensor:
    output: Tensor = _BatchNorm.apply(
        images, layer.running_mean, layer.running_var, layer.weight, layer.bias, layer.eps
    )
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
        factor = torch.rsqrt(variance + eps)
        ctx.save_for_backward(factor if weight is None else factor * weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = ctx.saved_tensors
        # in the statistics' precision, as torch does, whatever the gradient's is
        return (gradient * factor[:, None, None]).to(ctx.dtype), None, None, None, None, None
