"""Emoji as pixels: drawn on a plain colour, and compared with each other."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Sequence

import numpy as np
from emoji_classes import fixed_hash
from numpy.typing import NDArray
from PIL import Image

_COMPARED = 16  # pixels a side: what is alike here is alike to a net
_GREY = (128, 128, 128)


Pixels = NDArray[np.float64]


def render(svg: str, size: int, background: tuple[int, int, int]) -> Image.Image:
    """`svg` in a square of `size` pixels, a sixteenth of it being margin, on a plain colour."""
    import resvg_py  # an extra; the rest can be used without

    inner = size - 2 * round(size / 32)
    drawn = Image.open(
        io.BytesIO(
            resvg_py.svg_to_bytes(svg_string=svg, width=inner, height=inner, skip_system_fonts=True)
        )
    ).convert("RGBA")
    canvas = Image.new("RGBA", (size, size), (*background, 255))
    canvas.alpha_composite(drawn, ((size - drawn.width) // 2, max(0, (size - drawn.height) // 2)))
    return canvas.convert("RGB")


def background(name: str) -> tuple[int, int, int]:
    """A colour from a hash of the image's name, pale, so that drawings show."""
    bits = fixed_hash(f"background {name}")
    hue, saturation, value = ((bits >> shift & 255) / 255 for shift in (0, 8, 16))
    colour = colorsys.hsv_to_rgb(hue, 0.05 + 0.35 * saturation, 0.8 + 0.2 * value)
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def compared(svg: str) -> Pixels:
    """A drawing on grey, small, as whole numbers: backgrounds and sizes do not matter."""
    small = render(svg, 2 * _COMPARED, _GREY).resize((_COMPARED,) * 2, Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float64)


def correlations(images: Sequence[Pixels], others: Sequence[Pixels]) -> NDArray[np.float64]:
    """Of each of `images` with each of `others`, or with its mirror image where that is higher.

    Training mirrors images, so a mirrored copy is a copy. All sums are of whole numbers below 2^53,
    so that the same drawings are copies on every machine.
    """
    rows = np.stack([image.ravel() for image in images])
    highest = np.full((len(images), len(others)), -1.0)
    for flipped in (False, True):
        columns = np.stack([(other[:, ::-1] if flipped else other).ravel() for other in others])
        products = rows.shape[1] * (rows @ columns.T) - rows.sum(1)[:, None] * columns.sum(1)
        highest = np.maximum(highest, products / np.sqrt(_spread(rows)[:, None] * _spread(columns)))
    return highest


def _spread(rows: Pixels) -> NDArray[np.float64]:
    spread: NDArray[np.float64] = rows.shape[1] * (rows**2).sum(1) - rows.sum(1) ** 2
    return np.maximum(1.0, spread)  # one colour all over is like nothing
