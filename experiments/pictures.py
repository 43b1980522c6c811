"""SVG as pixels: drawn on a plain colour, and compared with each other."""

from __future__ import annotations

import colorsys
import hashlib
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

ALIKE = 0.95
"""Correlation of pixels from which on two images count as copies of each other."""

_COMPARED = 16  # pixels a side: what is alike here is alike to a net
_AT_ONCE = 500  # images, of which correlations are in memory together
_GREY = (128, 128, 128)


Pixels = NDArray[np.uint8]


def fixed_hash(text: str) -> int:
    """A number that depends on `text` alone, on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


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
    return _colour(f"background {name}", saturation=0.05, value=0.8)


def foreground(name: str) -> str:
    """A colour from a hash of the image's name, dark, as SVG writes it."""
    return "#{:02x}{:02x}{:02x}".format(*_colour(f"foreground {name}", saturation=0.3, value=0.2))


def _colour(seed: str, *, saturation: float, value: float) -> tuple[int, int, int]:
    """Of any hue, of a saturation up to 0.35 and a value up to 0.2 above those given."""
    bits = fixed_hash(seed)
    drawn = [(bits >> shift & 255) / 255 for shift in (0, 8, 16)]
    colour = colorsys.hsv_to_rgb(drawn[0], saturation + 0.35 * drawn[1], value + 0.2 * drawn[2])
    red, green, blue = (round(255 * part) for part in colour)
    return red, green, blue


def compared(svg: str) -> Pixels:
    """A drawing on grey, small, as whole numbers: backgrounds and sizes do not matter."""
    small = render(svg, 2 * _COMPARED, _GREY).resize((_COMPARED,) * 2, Image.Resampling.BOX)
    return np.asarray(small)


def highest_correlations(images: Sequence[Pixels], others: Sequence[Pixels]) -> NDArray[np.float64]:
    """For each of `images` its highest correlation with any of `others` or its mirror image.

    Training mirrors images, so a mirrored copy is a copy. All sums are of whole numbers below 2^53,
    so that the same drawings are copies on every machine.
    """
    rows = np.stack([image.ravel() for image in images]).astype(np.float64)
    highest = np.full(len(images), -1.0)
    for flipped in (False, True):
        for start in range(0, len(others), _AT_ONCE):
            few = others[start : start + _AT_ONCE]
            columns = np.stack([(one[:, ::-1] if flipped else one).ravel() for one in few])
            columns = columns.astype(np.float64)
            products = rows.shape[1] * (rows @ columns.T) - rows.sum(1)[:, None] * columns.sum(1)
            scales = np.sqrt(_spread(rows)[:, None] * _spread(columns))
            highest = np.maximum(highest, (products / scales).max(axis=1))
    return highest


def _spread(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    spread: NDArray[np.float64] = rows.shape[1] * (rows**2).sum(1) - rows.sum(1) ** 2
    return np.maximum(1.0, spread)  # one colour all over is like nothing
