"""Checksums of a store's perturbations and epochs, which reveal damage when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from advprop.methods.kept.mapped_file import damaged

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]


def sealed(epochs: Array, images: Array) -> Array:
    """Return each epoch as a 64-bit word: the epoch in the upper half, a checksum in the lower.

    The checksum depends on the epoch and on the image's number, which `images` gives for each row
    of `epochs`. The word is 0 for epoch 0 (never). A word is written completely or not at all.
    """
    count = epochs.astype(np.uint64)
    rows = images.astype(np.uint64).reshape(-1, *[1] * (epochs.ndim - 1))
    mixed = (count * np.uint64(0x9E3779B1) + rows * np.uint64(0x85EBCA77)) ^ (count << np.uint64(7))
    return np.where(count > 0, count << np.uint64(32) | mixed & np.uint64(0xFFFFFFFF), np.uint64(0))


def sums_of(values: Array) -> Array:
    """Return the sum of each entry's bytes, taken eight at a time if the size permits."""
    rows = np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8)
    width = next(width for width in (8, 4, 2, 1) if rows.shape[1] % width == 0)
    found: Array = rows.view(f"u{width}").sum(axis=1, dtype=np.uint64)
    return found


@dataclass(frozen=True, kw_only=True)
class Entries:
    """Two `values` for each image; `seals` has an epoch's word and a checksum for each of them.

    Epochs count from 1, and 0 means never. `path` is the file that holds the arrays, or None.
    """

    values: Array
    seals: Array
    path: Path | None

    def epochs(self, images: Array | None = None) -> Array:
        """Return the epochs of both entries of `images` (None: all); raises OSError if damaged."""
        images = np.arange(len(self.values)) if images is None else images
        words = self.seals[0, images]
        epochs: Array = (words >> np.uint64(32)).astype(np.int64)
        if not np.array_equal(sealed(epochs, images), words):
            raise damaged(self.path, "it holds epochs that were not written")
        return epochs

    def extent(self) -> dict[str, int]:
        """Return the number of written entries and the newest epoch; neither ever decreases."""
        epochs = self.epochs()
        return {"written": int((epochs > 0).sum()), "newest": int(epochs.max(initial=0))}

    def read(self, images: Array, slots: Array, *, written: Array) -> Array:
        """Return each image's values in its slot; raises OSError if `written` ones are damaged."""
        values: Array = self.values[images, slots]
        wrong = written & (sums_of(values) != self.seals[1, images, slots])
        if wrong.any():
            raise damaged(self.path, f"the perturbation of image {images[wrong][0]} is another")
        return values

    def write(self, images: Array, slots: Array, epochs: Array, values: Array) -> None:
        """Store `values`; if an image occurs twice, its last value stays."""
        # the epoch first: half a perturbation must not count as a whole one of an earlier epoch
        self.seals[0, images, slots] = sealed(epochs, images)
        self.seals[1, images, slots] = sums_of(values)
        self.values[images, slots] = values

    def seal(self, epochs: Array) -> None:
        """Store `epochs`, and checksums of the values that are already there."""
        for image in np.flatnonzero(epochs.max(axis=1, initial=0)):
            self.seals[1, image] = sums_of(self.values[image])
        self.seals[0] = sealed(epochs, np.arange(len(epochs)))
