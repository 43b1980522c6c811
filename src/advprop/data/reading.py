"""Read image files as they are meant to be shown: upright, over white, 8 bits a channel."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from advprop.data.listing.walking import image_formats, special_kind

_ORIENTATION, _BITS_PER_SAMPLE, _PHOTOMETRIC = 0x112, 258, 262
# Pillow's exif_transpose also encodes all other tags again, and fails if one has the wrong type
_TURNS: dict[object, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(path: str | Path, *, channels: int) -> Image.Image:
    """Return the image in `path` as Pillow's "RGB" (3 channels) or "L" (1 channel).

    EXIF rotation is applied, transparent pixels are laid over white, CMYK and palettes are
    converted, 16 bits a channel are scaled to 8. Raises ValueError, with the path, if the file
    cannot be read: missing, truncated, no image, too large, pixels without a known range.
    """
    with named_errors(path), open_image(path) as image:
        return upright(image, channels)


def open_image(source: str | Path | IO[bytes]) -> Image.Image:
    """Return `source`, opened by Pillow as one of the `image_formats`.

    Raises ValueError for a pipe or device, since opening one could block; other errors are Pillow's
    own.
    """
    if isinstance(source, str | Path) and (kind := special_kind(source)):
        raise ValueError(f"it is a {kind}, not a file")
    return Image.open(source, formats=image_formats())


def upright(image: Image.Image, channels: int) -> Image.Image:
    """Return an image that Pillow has opened, loaded and converted as `read_image` describes.

    Raises ValueError if its pixels have no known range, and Pillow's own errors.
    """
    clear = _transparent_value(image)
    image.load()  # metadata may be stored after the pixels
    # PNG and PPM have 16 bits, which Pillow stores in 32
    if image.mode == "I" and image.format not in ("PNG", "PPM"):
        raise ValueError("its pixels have 32 bits without a known range; save it with 8 or 16 bits")
    turn = _TURNS.get(_orientation(image))
    if image.mode.startswith("I"):
        image = _eight_bits(image, clear)
    elif clear is not None:
        image.info["transparency"] = clear
    if turn is not None:
        image = image.transpose(turn)
    if image.mode == "F":
        raise ValueError("its pixels are floats without a known range; save it with 8 or 16 bits")
    if image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
        image = image.convert("RGB")
    if image.mode == "LAB":  # Pillow converts LAB to RGB only
        image = image.convert("RGB")
    return image.convert("RGB" if channels == 3 else "L")


def _transparent_value(image: Image.Image) -> Any:
    """Return the value or colour that is transparent in a PNG, in the units of Pillow's pixels.

    Pillow scales pixels of 2, 4 and 3 x 16 bits to 8 bits, but not this value. Returns None if
    there is none, or for a palette.
    """
    value = image.info.get("transparency")
    tiles: Any = getattr(image, "tile", None)  # set for files that are not loaded yet
    packed = tiles[0][3] if tiles and image.format == "PNG" else None
    if isinstance(value, tuple) and packed == "RGB;16B":
        return tuple(number >> 8 for number in value)
    if isinstance(value, int) and image.mode != "P":
        return value * {"L;2": 85, "L;4": 17}.get(str(packed), 1)
    return value if isinstance(value, tuple) else None


def _orientation(image: Image.Image) -> object:
    """Return the value of the EXIF orientation tag, or None if it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION)
        return value[0] if isinstance(value, tuple) else value
    except Exception:  # damaged tags raise all kinds of errors, even if the pixels are intact
        return None


def header_problem(path: str | Path) -> str | None:
    """Return the file's name and the fault of its header, or None if there is none.

    Only the header is read, so a truncated file is not noticed.
    """
    try:
        with _strict_pillow(), open_image(path):
            return None
    except Exception as error:  # as in named_errors
        return f"{path}: {_reason(error)}"


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (width, height) from the file's header; raises ValueError if it is unreadable."""
    with named_errors(path), open_image(path) as image:
        return image.size


class UnreadableImageError(ValueError):
    """Raised if an image file cannot be read, or too many of them."""


@contextmanager
def named_errors(name: str | Path) -> Iterator[None]:
    """Raise UnreadableImageError, with the image's `name`, for any error of reading it inside."""
    try:
        with _strict_pillow():
            yield
    except MemoryError:  # not a fault of the file
        raise
    except Exception as error:  # Pillow's decoders raise all kinds of errors
        raise UnreadableImageError(f"cannot read the image {name}: {_reason(error)}") from error


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Treat oversized images as errors, and ignore damaged metadata if the pixels are intact."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down"
    if isinstance(error, UnidentifiedImageError):
        return "empty, damaged or not an image that Pillow reads; repair or delete it"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder; name a file"
    return f"{str(error) or type(error).__name__}; save it anew, as PNG, or delete it"


def _eight_bits(image: Image.Image, clear: int | None) -> Image.Image:
    """Return a 16-bit grey image scaled to 8 bits; Pillow's own conversion would clip it at 255.

    Pixels of value `clear` become white. TIFF tags say whether only 12 bits are used, and whether
    0 is white; Pillow ignores both at this depth.
    """
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ValueError("its pixels exceed 16 bits; save it with 8 or 16 bits")
    tags = getattr(image, "tag_v2", {})
    if tags.get(_BITS_PER_SAMPLE) == (12,):
        values = values * 65535 // 4095
    if tags.get(_PHOTOMETRIC) == 0:
        values = 65535 - values
    if clear is not None:
        values[np.asarray(image) == clear] = 65535
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))
