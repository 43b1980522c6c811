"""The images' gradient through a model's first convolution: attacks need it, training does not.

On a CPU, oneDNN makes the gradient of a convolution's input in vectors of 16 channels. Images fill
3 of them, so that ResNet's first layer takes five times as long backward as forward. With a stride
of s, the s x s pixels of a block can stand in for channels: their gradient is one convolution of
stride 1 with s * s times as many output channels, and a pixel shuffle (Shi et al. 2016, arXiv
1609.05158, section 3.2, read as the gradient of a strided convolution).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advprop.auxiliary.quick_gradient import images_alone

MOST_CHANNELS = 4
"""From here on oneDNN's own gradient is about as quick."""


def conv2d(
    images: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, ...] = 1,
    padding: str | int | tuple[int, ...] = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> Tensor:
    """`F.conv2d`, the same bit for bit, with the quick gradient where it is to be had."""
    rows, columns = _pair(stride)
    quick = rows == columns > 1 and _pair(dilation) == (1, 1) and groups == 1
    if not quick or isinstance(padding, str) or not images_alone(images, weight, bias):
        return F.conv2d(images, weight, bias, stride, padding, dilation, groups)
    output: Tensor = _Convolution.apply(images, weight, bias, rows, _pair(padding))
    return output


class _Convolution(torch.autograd.Function):
    """`conv2d`, differentiable by the images alone."""

    @staticmethod
    def forward(
        images: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: tuple[int, int]
    ) -> Tensor:
        return F.conv2d(images, weight, bias, stride, padding)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        images, weight, _, ctx.stride, ctx.padding = inputs
        ctx.size, ctx.dtype = images.shape[2:], images.dtype
        ctx.save_for_backward(weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (weight,) = ctx.saved_tensors
        weight = weight.to(gradient.dtype)  # under autocast the output alone is in half precision
        with torch.autocast("cpu", enabled=False):
            result = image_gradient(gradient, weight, ctx.stride, ctx.padding, ctx.size)
        return result.to(ctx.dtype), None, None, None, None


def image_gradient(
    gradient: Tensor,
    weight: Tensor,
    stride: int,
    padding: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """The gradient of a convolution's input, [batch, channels, *size], from that of its output.

    Pixel `stride * block + offset` meets output `block + tap` by the weight at `offset + padding -
    stride * tap`, so each block is a weighted sum over the same few taps.
    """
    margins: list[int] = []
    for dim in (1, 0):  # `pad` begins with the last one
        first, last = _taps(weight.shape[2 + dim], stride, padding[dim])
        before = stride * last - padding[dim]
        after = stride * (last - first + 1) - weight.shape[2 + dim] - before
        weight = F.pad(weight, (before, after) if dim else (0, 0, before, after))
        blocks = -(-size[dim] // stride)
        margins += [-first, blocks + last - gradient.shape[2 + dim]]
    rows, columns = (weight.shape[dim] // stride for dim in (2, 3))
    kernels = weight.unflatten(3, (columns, stride)).unflatten(2, (rows, stride)).flip(2, 4)
    # from [output, channel, row tap, row offset, column tap, column offset]
    kernels = kernels.permute(1, 3, 5, 0, 2, 4).flatten(0, 2)
    if gradient.is_contiguous(memory_format=torch.channels_last):
        kernels = kernels.contiguous(memory_format=torch.channels_last)
    shuffled = F.pixel_shuffle(F.conv2d(F.pad(gradient, margins), kernels), stride)
    return shuffled[:, :, : size[0], : size[1]]


def _taps(kernel: int, stride: int, padding: int) -> tuple[int, int]:
    """The first and the last output, relative to a block's number, that its pixels take part in."""
    return (padding - kernel) // stride + 1, (stride - 1 + padding) // stride


def _pair(value: int | tuple[int, ...]) -> tuple[int, int]:
    rows, columns = (value, value) if isinstance(value, int) else (value * 2)[:2]
    return rows, columns
