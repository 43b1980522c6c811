"""Data sets of three splits, whose images are addressed by (epoch, index)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from advprop.data.preprocessing import Preprocessing
from advprop.randomness import generator_for
from advprop.shapes import Batch, StoredImages, unit_range

MAX_COMPARED_BYTES = 2**20
"""The most bytes of a file that `ImageSplit.stored` returns."""


class Key(NamedTuple):
    """One use of an image, in training in `epoch` or in evaluation (None).

    `copy` numbers the uses in one epoch; each is augmented differently.
    """

    epoch: int | None
    index: int  # type: ignore[assignment]  # hides tuple.index, which is not used
    copy: int = 0


class ImageSplit(ABC):
    """One split of a data set; a map-style data set for torch's `DataLoader`.

    An image depends on its key alone, so loader workers keep no state and a run can resume at any
    batch. `labels` are int64 of shape [num_images], or several for each image, as floats of
    shape [num_images, labels]: 1 present, 0 absent, NaN unknown. `max_unreadable` is the share of
    the images that may be unreadable in training.
    """

    labels: Int[Tensor, " num_images"] | Float[Tensor, "num_images labels"]
    max_unreadable: float = 0.0

    @abstractmethod
    def images(self, keys: Sequence[Key]) -> StoredImages:
        """Return the images of `keys`, [len(keys), C, H, W], in bytes or float32 in [0, 1]."""

    def image(
        self, index: int, *, epoch: int | None = None, copy: int = 0
    ) -> Float[Tensor, "C H W"]:
        """Return image `index` in [0, 1], as in `epoch` of training or in evaluation (None)."""
        return unit_range(self.images([Key(epoch, index, copy)]))[0]

    def epoch_order(self, seed: int, epoch: int) -> Int[Tensor, " num_images"]:
        """Return every index once, int64, in an order that depends on (seed, epoch) alone."""
        return torch.randperm(len(self), generator=generator_for(seed, epoch, "order"))

    @property
    def strata(self) -> list[int]:
        """Return each image's class, kept in proportion by subsets; 0 if it has several labels."""
        return self.labels.tolist() if self.labels.ndim == 1 else [0] * len(self)

    @property
    def label_bytes(self) -> bytes:
        """Return all labels as bytes, which are equal if two data sets have equal labels."""
        several = self.labels.ndim > 1
        return self.labels.to(torch.float32 if several else torch.int64).numpy().tobytes()

    def names(self) -> Sequence[str]:
        """Return each image's name in the data set, independent of the set's location."""
        return [str(index) for index in range(len(self))]

    def stored(self, index: int) -> bytes:
        """Return image `index` as bytes: its pixels, or up to `MAX_COMPARED_BYTES` of its file."""
        return self.image(index).numpy().tobytes()

    def stored_size(self, index: int) -> int:
        """Return the size of image `index` in bytes, or 0 if it is unknown before reading it."""
        return 0

    def redrawn(self, names: Sequence[str]) -> ImageSplit:
        """Return a split whose images have further draws of their augmentation as views.

        Raises ValueError if images are not augmented, so that all draws would be the same.
        """
        raise ValueError(
            f"views {', '.join(names)} are further draws of each image's augmentation, and these "
            "images have none: load them with one (data.augmentation in a configuration)"
        )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of `keys`, which torch's loader passes on unchanged."""
        return self.batch_of(keys, self.images(keys))

    def batch_of(
        self, keys: Sequence[Key], images: StoredImages, unreadable: Sequence[str] = ()
    ) -> Batch:
        """Return the `images` of `keys` as a batch with their labels, indices and copies."""
        indices, copies = (
            torch.tensor([Key(*key)[1:] for key in keys], dtype=torch.int64).reshape(-1, 2).T
        )
        return Batch(
            images=images,
            labels=self.labels[indices],
            indices=indices,
            copies=copies,
            unreadable=tuple(unreadable),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySplit(ImageSplit):
    """Images in memory, [num_images, C, H, W], as integers from 0 (black) to `brightest`."""

    pixels: UInt8[Tensor, "num_images C H W"]
    labels: Int[Tensor, " num_images"]
    brightest: int = 255

    def images(self, keys: Sequence[Key]) -> StoredImages:
        """Return the images of `keys`, the same in every epoch; in bytes if 255 is brightest."""
        chosen = self.pixels[[key[1] for key in keys]]
        return chosen if self.brightest == 255 else chosen.to(torch.float32).div_(self.brightest)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """The source of each split in words, and what was found beside the images.

    `splits` has "train", "validation" and, if there is one, "test". `passed_over` counts skipped
    files by reason, such as ".heic files"; `notes` are sentences about possible faults.
    """

    splits: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A data set with its splits: `validation` is for choosing settings, `test` for results.

    `test` is None for a folder with `train/` and `val/` alone. `preprocessing` converts an image
    file to an input like those of the splits.
    """

    name: str
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    train: ImageSplit
    validation: ImageSplit
    test: ImageSplit | None
    origin: Origin = Origin()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Return the (channels, height, width) of every image."""
        return self.preprocessing.image_shape

    @property
    def num_classes(self) -> int:
        """Return the number of classes, or of the labels that an image can have."""
        return len(self.class_names)

    @property
    def multi_label(self) -> bool:
        """Return whether an image has several labels, which `class_names` names."""
        return self.train.labels.ndim > 1
