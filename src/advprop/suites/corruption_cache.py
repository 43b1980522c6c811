"""Caches corrupted images on disk, since making them takes minutes.

Results do not depend on the cache: files are checked when read, and damaged ones are made again.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
from jaxtyping import UInt8

from advprop.data.corruptions import corrupted, corruption_versions
from advprop.files.atomic import write_atomically

PixelArray: TypeAlias = UInt8[np.ndarray, "num_images C H W"]

_DIGEST_SIZE = 16
# increase whenever `corrupted` gives other pixels with the same versions of packages
_REVISION = 2
# the largest share of the free disk space that a set may take
_LARGEST_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class CorruptedImages:
    """Corrupted versions of `pixels`, cached in `folder`, which several processes may share.

    `num_conditions` is the number of pairs of corruption and severity. If all of them would take
    more than half of the free disk space, `under` warns and does not cache.
    """

    pixels: PixelArray
    folder: Path
    num_conditions: int

    def under(self, corruption: str, severity: int) -> PixelArray:
        """Return the corrupted images, cached or new; raises ImportError without the package."""
        path = self.folder / f"{corruption}-{severity}.npy"
        kept = _read(path, self.pixels.shape)
        if kept is not None:
            return kept
        made = np.stack(
            [corrupted(image, corruption=corruption, severity=severity) for image in self.pixels]
        )
        self._keep(path, made)
        return made

    def _keep(self, path: Path, made: PixelArray) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            needed = made.nbytes * self.num_conditions
            free = shutil.disk_usage(self.folder).free
            if needed > free * _LARGEST_SHARE:
                raise OSError(f"they take {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
            write_atomically(path, lambda file: _write(file, made))
        except OSError as error:
            warnings.warn(
                f"corrupted images cannot be kept in {self.folder} and will be made anew next time "
                f"({error}): name another folder by ADVPROP_CACHE, or test fewer images (--limit)",
                stacklevel=3,
            )


def corrupted_images(pixels: PixelArray, *, num_conditions: int) -> CorruptedImages:
    """Return `CorruptedImages` whose folder depends on the pixels and the package versions."""
    content = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    content.update(repr((_REVISION, pixels.shape, sorted(corruption_versions().items()))).encode())
    content.update(np.ascontiguousarray(pixels).data)
    folder = cache_folder() / "corruptions" / content.hexdigest()
    return CorruptedImages(pixels, folder, num_conditions)


def cache_folder() -> Path:
    """Return $ADVPROP_CACHE, else $XDG_CACHE_HOME/advprop, else ~/.cache/advprop."""
    if own := os.environ.get("ADVPROP_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "advprop"
    return Path.home() / ".cache" / "advprop"


def _write(file: IO[bytes], pixels: PixelArray) -> None:
    """Write a numpy file, followed by the digest of its bytes."""
    array = io.BytesIO()
    np.save(array, pixels, allow_pickle=False)
    file.write(array.getbuffer())
    file.write(_digest(array.getbuffer()))


def _read(path: Path, shape: tuple[int, ...]) -> PixelArray | None:
    """Return the pixels in `path`, or None if the file is missing or damaged."""
    try:
        content = memoryview(path.read_bytes())
    except OSError:
        return None
    array, digest = content[:-_DIGEST_SIZE], content[-_DIGEST_SIZE:]
    if digest != _digest(array):
        return None  # before numpy reads a damaged header
    pixels: PixelArray = np.load(io.BytesIO(array), allow_pickle=False)
    return pixels if pixels.shape == shape and pixels.dtype == np.uint8 else None


def _digest(content: memoryview) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST_SIZE).digest()
