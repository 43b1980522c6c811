"""The scales of a pyramid: square patches of pixels that move together (Herrmann et al. 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_EDGES = (7, 14)
"""The paper's patches of 32 and 16 pixels are a 7th and a 14th of its images' edge of 224."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Square patches of `size` pixels a side, from the upper left corner; the last may be cut off.

    A perturbation at this scale is a grid, with a value for each patch and channel, and is
    multiplied by `multiplier` to change pixels.
    """

    size: int
    multiplier: float

    def grid_like(self, images: Tensor) -> Tensor:
        """Return an empty grid for `images`, [batch, channels, rows, columns], at least float32."""
        rows, columns = (math.ceil(edge / self.size) for edge in images.shape[2:])
        return images.new_empty(*images.shape[:2], rows, columns, dtype=_wide(images))

    def spread(self, grid: Tensor, images: Tensor) -> Tensor:
        """Return the change of pixels by `grid`: its values times `multiplier` on their patches."""
        height, width = images.shape[2:]
        pixels = grid.repeat_interleave(self.size, 2).repeat_interleave(self.size, 3)
        return self.multiplier * pixels[..., :height, :width]

    def pool(self, gradient: Tensor) -> Tensor:
        """Return the sum of the pixel `gradient` over each patch; `multiplier` is not applied."""
        if self.size == 1:
            return gradient
        # sums could overflow in float16, and a sum of infinities of both signs would be NaN
        finite = gradient.nan_to_num(0.0).to(_wide(gradient))
        return F.avg_pool2d(finite, self.size, ceil_mode=True, divisor_override=1)


def check_scales(sizes: Sequence[float] | None, multipliers: Sequence[float]) -> None:
    """Raise ValueError unless each size is a whole number of pixels with a multiplier above 0."""
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
    """Return the scales for images of this size, the coarsest first.

    Without `sizes` they are a 7th and a 14th of the shorter edge, and 1 pixel. If a size occurs
    twice, as on very small images, its last multiplier is used.
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
