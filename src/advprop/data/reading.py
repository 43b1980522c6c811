"""Image files as they are meant to look: upright, over white, 8 bits a channel."""

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
# Pillow's exif_transpose encodes all other tags again, and refuses a photo for a mistyped one
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
    """The image in `path` as Pillow's "RGB" (3 channels) or "L" (1 channel).

    EXIF rotation is applied, transparent pixels are laid over white, CMYK and palettes are
    converted, 16 bits a channel are scaled to 8. ValueError: the file cannot be read (missing,
    truncated, no image, too large, pixels without a known range), named in the message.
    """
    with named_errors(path), open_image(path) as image:
        return upright(image, channels)


def open_image(source: str | Path | IO[bytes]) -> Image.Image:
    """What Pillow's `Image.open` gives, of the formats that are read, and of files alone.

    Opening a named pipe would wait for ever. ValueError: it is one; other errors are Pillow's.
    """
    if isinstance(source, str | Path) and (kind := special_kind(source)):
        raise ValueError(f"it is a {kind}, not a file")
    try:
        return Image.open(source, formats=image_formats())
    except UnidentifiedImageError:
        if _first_bytes(source) in (b"II*\0", b"MM\0*"):
            raise ValueError("a TIFF that is damaged or of a kind that is not read") from None
        raise


def _first_bytes(source: str | Path | IO[bytes]) -> bytes:
    if isinstance(source, str | Path):
        with open(source, "rb") as file:
            return file.read(4)
    source.seek(0)
    return source.read(4)


def upright(image: Image.Image, channels: int) -> Image.Image:
    """An image that Pillow has opened, as `read_image` gives it; the pixels are read now."""
    clear = _transparent_value(image)
    image.load()  # tags may come after the pixels
    # Pillow has 16 bits of these formats in 32
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
    if image.mode == "LAB":  # which Pillow converts to nothing else
        image = image.convert("RGB")
    return image.convert("RGB" if channels == 3 else "L")


def _transparent_value(image: Image.Image) -> Any:
    """The value or colour of a PNG that stands for nothing, in the units of Pillow's pixels.

    Pillow scales pixels of 2, 4 and 3 x 16 bits to 8, and leaves this value as it is in the file.
    None: there is none, or a palette's.
    """
    value = image.info.get("transparency")
    tiles: Any = getattr(image, "tile", None)  # of files that are not loaded yet
    packed = tiles[0][3] if tiles and image.format == "PNG" else None
    if isinstance(value, tuple) and packed == "RGB;16B":
        return tuple(number >> 8 for number in value)
    if isinstance(value, int) and image.mode != "P":
        return value * {"L;2": 85, "L;4": 17}.get(str(packed), 1)
    return value if isinstance(value, tuple) else None


def _orientation(image: Image.Image) -> object:
    """The EXIF tag, as it stands there; None where it cannot be read."""
    try:
        value = image.getexif().get(_ORIENTATION)
        return value[0] if isinstance(value, tuple) else value
    except Exception:  # damaged tags beside good pixels raise all kinds of them
        return None


def header_problem(path: str | Path) -> str | None:
    """The file's name and what is wrong with its first bytes, or None.

    Quick, but blind to a file that was cut off later on.
    """
    try:
        with _strict_pillow(), open_image(path):
            return None
    except Exception as error:  # as in named_errors
        return f"{path}: {_reason(error)}"


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height as the file's first bytes tell; ValueError names one that is unreadable."""
    with named_errors(path), open_image(path) as image:
        return image.size


@contextmanager
def named_errors(name: str | Path) -> Iterator[None]:
    """Whatever is wrong with an image becomes a ValueError that names it."""
    try:
        with _strict_pillow():
            yield
    except MemoryError:  # no fault of the file
        raise
    except Exception as error:  # Pillow's decoders raise all kinds of them
        raise ValueError(f"cannot read the image {name}: {_reason(error)}") from error


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Images that would fill the memory are errors; damaged metadata beside good pixels is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def _reason(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
        return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels; scale it down"
    if isinstance(error, UnidentifiedImageError):
        return "empty or not an image; repair or delete it"
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "it is a folder; name a file"
    return f"{str(error) or type(error).__name__}; save it anew, as PNG, or delete it"


def _eight_bits(image: Image.Image, clear: int | None) -> Image.Image:
    """16-bit grey scaled to 8 bits, where Pillow's own conversion would cut it off at 255.

    Pixels of value `clear` become white. TIFF's tags tell whether only 12 bits are used, and
    whether 0 is white; Pillow heeds neither at this depth.
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
