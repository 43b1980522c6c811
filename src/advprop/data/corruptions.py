"""The corruptions of ImageNet-C made on the fly, each a function of (image, corruption, severity).

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019), as the package imagecorruptions-imaug has them.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from advprop.randomness import derive_seed, random_streams

CORRUPTIONS = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
"""The 15 that the mean corruption error is made of."""

EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The 4 that the authors hold out, for those who choose settings on corruptions."""

SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE = 32
"""Pixels that the package asks for; smaller images are mirrored at their edges up to it."""

_PACKAGE = "imagecorruptions-imaug"
# what the pixels depend on besides the package itself
_BELOW = ("numba", "numpy", "opencv-python", "pillow", "scikit-image", "scipy")
# these two have no global stream to draw from, they take a seed
_SEEDED = ("impulse_noise", "glass_blur")
# these two have colours of their own; the others leave the channels of a grey image equal, or draw
# for each channel, so that a mixture of channels would have weaker noise than one
_COLOURED = ("frost", "spatter")

Corrupt: TypeAlias = Callable[..., Any]
Pixels: TypeAlias = UInt8[np.ndarray, "C H W"]


def corrupted(pixels: Pixels, *, corruption: str, severity: int) -> Pixels:
    """The image with `corruption` at `severity` (1 to 5), uint8, of the same shape.

    All random numbers follow from (pixels, corruption, severity), so neither the order of images
    nor their batch or process matters. Grey images stay grey. Sides below `MIN_SIDE` are padded by
    their mirror image, which is cut off again: resizing would soften noise. ImportError: the extra
    `corruptions` is missing.
    """
    corrupt = _corrupt()
    content = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    content.update(np.ascontiguousarray(pixels).data)
    parts = ("corruption", content.hexdigest(), corruption, severity)
    height, width = pixels.shape[1:]
    more_columns, more_rows = np.subtract(padded_size(width, height), (width, height))
    top, left = more_rows // 2, more_columns // 2
    margins = ((0, 0), (top, more_rows - top), (left, more_columns - left))
    picture = _picture(np.pad(pixels, margins, mode="symmetric"))
    options = {"seed": derive_seed(*parts, "seed") % 2**32} if corruption in _SEEDED else {}
    with random_streams(*parts), redirect_stdout(io.StringIO()):  # it prints what it gets over
        found = _corrupted(corrupt, np.asarray(picture), corruption, severity, options)
    whole = _pixels(Image.fromarray(found), len(pixels), corruption)
    return whole[:, top : top + height, left : left + width].copy()


def padded_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) in which an image of this size is corrupted."""
    return max(width, MIN_SIDE), max(height, MIN_SIDE)


def check_installed() -> None:
    """ImportError with the remedy where the package is missing; quicker than importing it."""
    if _version(_PACKAGE) is None:
        raise ImportError(
            f"corrupted images are made by the package {_PACKAGE}, which is not installed: "
            'pip install "advprop[corruptions]"'
        )


def corruption_versions() -> dict[str, str]:
    """Versions of the packages that a corrupted image depends on, the maker first."""
    return {name: _version(name) or "unknown" for name in (_PACKAGE, *_BELOW)}


@cache
def _corrupt() -> Corrupt:
    """The package's function; ImportError with the remedy."""
    check_installed()
    try:
        from imagecorruptions import corrupt  # seconds to import
    except ImportError as error:
        raise ImportError(
            f"the package {_PACKAGE} cannot be imported ({error}): "
            'pip install --force-reinstall "advprop[corruptions]"'
        ) from error
    return corrupt  # type: ignore[no-any-return]


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # OpenCV goes by several names


def _corrupted(
    corrupt: Corrupt, image: np.ndarray, corruption: str, severity: int, options: dict[str, int]
) -> UInt8[np.ndarray, "H W 3"]:
    if corruption != "spatter":
        found = corrupt(image, corruption_name=corruption, severity=severity, **options)
        return np.asarray(found)
    try:
        with np.errstate(invalid="raise"):
            return np.asarray(corrupt(image, corruption_name=corruption, severity=severity))
    except FloatingPointError:
        # no drop of water falls on many a small image; the package divides by the largest drop,
        # and would return black
        return np.asarray(Image.fromarray(image).convert("RGB"))


def _picture(pixels: Pixels) -> Image.Image:
    if len(pixels) == 1:
        return Image.fromarray(pixels[0])
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _pixels(picture: Image.Image, channels: int, corruption: str) -> Pixels:
    """Three channels, or the one that a grey image has."""
    if channels == 1:
        grey = picture.convert("L") if corruption in _COLOURED else picture.getchannel(0)
        return np.asarray(grey)[None]
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
