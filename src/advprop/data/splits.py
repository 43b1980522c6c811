"""What a data set is: three splits, whose images are addressed by (epoch, index)."""

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
from advprop.shapes import Batch, Images, StoredImages

MAX_COMPARED_BYTES = 2**20
"""How much of an image `ImageSplit.stored` gives at most."""


class Key(NamedTuple):
    """One use of an image: epoch None asks for the evaluation's view of it.

    `copy` tells uses in the same epoch apart; each is augmented differently.
    """

    epoch: int | None
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs
    copy: int = 0


class ImageSplit(ABC):
    """One split of a data set; a map-style data set for torch's `DataLoader`.

    An image depends on its key alone, so loader workers keep no state and a run may go on from any
    batch. Batches hold what `images` gives, or the same in bytes where `__getitems__` says so.
    `labels` are int64 of shape [num_images]; `max_unreadable` is the share of the images that
    training may find unreadable.
    """

    labels: Int[Tensor, " num_images"]
    max_unreadable: float = 0.0

    @abstractmethod
    def images(self, keys: Sequence[Key]) -> Images:
        """The images of `keys`, float32 in [0, 1], shape [len(keys), C, H, W]."""

    def image(
        self, index: int, *, epoch: int | None = None, copy: int = 0
    ) -> Float[Tensor, "C H W"]:
        """Image `index` as training meets it in `epoch`, or as evaluation does (None)."""
        return self.images([Key(epoch, index, copy)])[0]

    def epoch_order(self, seed: int, epoch: int) -> Int[Tensor, " num_images"]:
        """Every index once, int64, in an order that depends on (seed, epoch) alone."""
        return torch.randperm(len(self), generator=generator_for(seed, epoch, "order"))

    def names(self) -> Sequence[str]:
        """What each image is called in its data set, wherever that lies."""
        return [str(index) for index in range(len(self))]

    def stored(self, index: int) -> bytes:
        """Image `index` as its source has it, of large files the beginning."""
        return self.image(index).numpy().tobytes()

    def stored_size(self, index: int) -> int:
        """How many bytes image `index` has in its source; 0 where only reading it would tell."""
        return 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The batch of `keys`; torch's loader hands it over as it is."""
        return self.batch_of(keys, self.images(keys))

    def batch_of(
        self, keys: Sequence[Key], images: StoredImages, unreadable: Sequence[str] = ()
    ) -> Batch:
        """`images`, those of `keys`, with their labels, indices and copies."""
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
    """Images in memory, [num_images, C, H, W], as whole numbers from 0 (black) to `brightest`."""

    pixels: UInt8[Tensor, "num_images C H W"]
    labels: Int[Tensor, " num_images"]
    brightest: int = 255

    def images(self, keys: Sequence[Key]) -> Images:
        """The images of `keys`, cut out in one go; they are the same in every epoch."""
        return self._chosen(keys).to(torch.float32).div_(self.brightest)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The batch of `keys`, in bytes where 255 is the brightest."""
        images = self._chosen(keys) if self.brightest == 255 else self.images(keys)
        return self.batch_of(keys, images)

    def _chosen(self, keys: Sequence[Key]) -> UInt8[Tensor, "batch C H W"]:
        return self.pixels[[key[1] for key in keys]]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the images of each split come from, in words, and what lay beside them unused.

    `splits` has "train", "validation" and "test" as far as there are. `passed_over` counts by
    reason, such as ".heic" files; `notes` are sentences about what may be amiss.
    """

    splits: Mapping[str, str] = field(default_factory=dict)
    passed_over: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """A data set: choices are made on `validation`, results come from `test`.

    `test` is None for a folder that came with `train/` and `val/` alone. `preprocessing` says how
    an image file becomes an input like those of the splits.
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
        """(channels, height, width) of every image."""
        return self.preprocessing.image_shape

    @property
    def num_classes(self) -> int:
        """How many classes there are; labels are 0 to `num_classes` - 1."""
        return len(self.class_names)
