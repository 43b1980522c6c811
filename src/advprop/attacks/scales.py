"""The scales of a pyramid: square patches of pixels that move together (Herrmann et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_EDGES = (7, 14)
"""The paper's patches of 32 and 16 pixels, as shares of the edge of its 224: a 7th, a 14th."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Patches of `size` by `size` pixels from the upper left corner; the last ones may be cut off.

    A perturbation has one value a patch and channel (a grid), and counts `multiplier` times.
    """

    size: int
    multiplier: float

    def grid_like(self, images: Tensor) -> Tensor:
        """A grid without values for each of `images`, in float32 or finer."""
        rows, columns = (math.ceil(edge / self.size) for edge in images.shape[2:])
        return images.new_empty(*images.shape[:2], rows, columns, dtype=_wide(images))

    def spread(self, grid: Tensor, images: Tensor) -> Tensor:
        """The pixels that a grid adds: each value, times `multiplier`, on its whole patch."""
        height, width = images.shape[2:]
        pixels = grid.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3)
        return self.multiplier * pixels[..., :height, :width]

    def pool(self, gradient: Tensor) -> Tensor:
        """Sums the pixel gradient over each patch; `multiplier` is not applied."""
        if self.size == 1:
            return gradient
        # sums would overflow in float16, and infinite values of both signs make a NaN of one
        finite = gradient.nan_to_num(0.0).to(_wide(gradient))
        return F.avg_pool2d(finite, self.size, ceil_mode=True, divisor_override=1)


def check_scales(sizes: Sequence[float] | None, multipliers: Sequence[float]) -> None:
    """Raise ValueError for sizes or multipliers that make no pyramid."""
    expected = len(_EDGES) + 1 if sizes is None else len(sizes)
    if not multipliers or len(multipliers) != expected:
        own = "an edge's 7th and 14th and 1 pixel" if sizes is None else str(tuple(sizes))
        raise ValueError(
            f"multipliers {tuple(multipliers)} for the scales {own}: give one for each"
        )
    for size in sizes or ():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"scale {size}: give a patch's edge in whole pixels, at least 1")
    for multiplier in multipliers:
        if not (math.isfinite(multiplier) and multiplier > 0):
            raise ValueError(f"multiplier {multiplier}: give a number above 0")


def scales_for(
    images: Tensor, sizes: Sequence[int] | None, multipliers: Sequence[float]
) -> tuple[Scale, ...]:
    """The scales for images of this size, the coarsest first.

    Without `sizes` they are a 7th and a 14th of the shorter edge, and 1 pixel. A size that comes
    twice, as on very small images, keeps its last multiplier.
    """
    if sizes is None:
        edge = min(images.shape[2:])
        sizes = (*(max(1, edge // share) for share in _EDGES), 1)
    unique = dict(zip(sizes, multipliers, strict=True))
    return tuple(
        Scale(size=size, multiplier=float(unique[size])) for size in sorted(unique, reverse=True)
    )


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
