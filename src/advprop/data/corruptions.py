"""The corruptions of ImageNet-C made on the fly, each a function of (image, corruption, severity).

Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations" (ICLR 2019), as implemented by the package imagecorruptions-imaug.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
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
"""The 15 corruptions that the mean corruption error averages."""

EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
"""The 4 further corruptions that the authors hold out for choosing settings."""

SEVERITIES = (1, 2, 3, 4, 5)
MIN_SIDE = 32
"""The package's smallest side in pixels; smaller images are padded to it by their mirror image."""

_PACKAGE = "imagecorruptions-imaug"
# the packages that the pixels depend on besides that one
_BELOW = ("numba", "numpy", "opencv-python", "pillow", "scikit-image", "scipy")
# these two take a seed instead of drawing from a global random stream
_SEEDED = ("impulse_noise", "glass_blur")
# these two add colours, so their result is converted to grey; the others keep the channels of a
# grey image equal or draw noise for each, so one channel is taken: mixing would weaken the noise
_COLOURED = ("frost", "spatter")

Pixels: TypeAlias = UInt8[np.ndarray, "C H W"]


def corrupted(pixels: Pixels, *, corruption: str, severity: int) -> Pixels:
    """Return the image with `corruption` at `severity` (1 to 5), uint8, of the same shape.

    The result is a function of (pixels, corruption, severity), so the order of images, their batch
    and the process do not matter. Grey images stay grey. Sides below `MIN_SIDE` are padded by their
    mirror image, which is cut off again, since resizing would soften noise. Raises ImportError if
    the extra `corruptions` is missing.
    """
    from imagecorruptions import corrupt  # seconds to import

    content = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    content.update(np.ascontiguousarray(pixels).data)
    parts = ("corruption", content.hexdigest(), corruption, severity)
    height, width = pixels.shape[1:]
    more_columns, more_rows = np.subtract(padded_size(width, height), (width, height))
    top, left = more_rows // 2, more_columns // 2
    margins = ((0, 0), (top, more_rows - top), (left, more_columns - left))
    padded = np.pad(pixels, margins, mode="symmetric").transpose(1, 2, 0)
    image = np.ascontiguousarray(padded[..., 0] if len(pixels) == 1 else padded)
    options = {"seed": derive_seed(*parts, "seed") % 2**32} if corruption in _SEEDED else {}
    with random_streams(*parts), redirect_stdout(io.StringIO()):  # the package prints caught errors
        make = partial(corrupt, image, corruption_name=corruption, severity=severity, **options)
        found = _spattered(make, image) if corruption == "spatter" else make()
    whole = _pixels(Image.fromarray(np.asarray(found)), len(pixels), corruption)
    return whole[:, top : top + height, left : left + width].copy()


def padded_size(width: int, height: int) -> tuple[int, int]:
    """Return the (width, height) to which an image of this size is padded for its corruption."""
    return max(width, MIN_SIDE), max(height, MIN_SIDE)


def check_installed() -> None:
    """Raise ImportError if the package is missing; does not import it, which takes seconds."""
    if _version(_PACKAGE) is None:
        raise ImportError(
            f"corrupted images are made by the package {_PACKAGE}, which is not installed: "
            'pip install "advprop[corruptions]"'
        )


def corruption_versions() -> dict[str, str]:
    """Return the package versions that determine a corrupted image, imagecorruptions first."""
    return {name: _version(name) or "unknown" for name in (_PACKAGE, *_BELOW)}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None  # OpenCV is distributed under several names


def _spattered(spatter: Callable[[], Any], image: np.ndarray) -> Any:
    try:
        with np.errstate(invalid="raise"):
            return spatter()
    except FloatingPointError:
        # small images often get no drop of water; the package then divides by the largest drop, 0,
        # and would return black
        return np.asarray(Image.fromarray(image).convert("RGB"))


def _pixels(picture: Image.Image, channels: int, corruption: str) -> Pixels:
    """Return the pixels of `picture`, [channels, H, W]: three channels, or one if it was grey."""
    if channels == 1:
        grey = picture.convert("L") if corruption in _COLOURED else picture.getchannel(0)
        return np.asarray(grey)[None]
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
