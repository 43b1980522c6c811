"""What a data set is: three splits, whose images are addressed by (epoch, index)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from advprop.data.preprocessing import Preprocessing
from advprop.shapes import Batch, Images

Key: TypeAlias = tuple[int | None, int]
"""(epoch, index) of a training image; (None, index) asks for the evaluation's view of it."""


class ImageSplit(ABC):
    """One split of a data set; a map-style data set for torch's `DataLoader`.

    An image depends on its key alone, so loader workers keep no state and a run may go on from any
    batch. `labels` are int64 of shape [num_images].
    """

    labels: Int[Tensor, " num_images"]

    @abstractmethod
    def images(self, keys: Sequence[Key]) -> Images:
        """The images of `keys`, float32 in [0, 1], shape [len(keys), C, H, W]."""

    def image(self, index: int, *, epoch: int | None = None) -> Float[Tensor, "C H W"]:
        """Image `index` as training meets it in `epoch`, or as evaluation does (None)."""
        return self.images([(epoch, index)])[0]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The batch of `keys`; torch's loader hands it over as it is."""
        indices = torch.tensor([index for _, index in keys], dtype=torch.int64)
        return Batch(images=self.images(keys), labels=self.labels[indices], indices=indices)


@dataclass(frozen=True, kw_only=True, eq=False)
class ArraySplit(ImageSplit):
    """Images in memory, [num_images, C, H, W], as whole numbers from 0 (black) to `brightest`."""

    pixels: UInt8[Tensor, "num_images C H W"]
    labels: Int[Tensor, " num_images"]
    brightest: int = 255

    def images(self, keys: Sequence[Key]) -> Images:
        """The images of `keys`, cut out in one go; they are the same in every epoch."""
        return self.pixels[[index for _, index in keys]].to(torch.float32).div_(self.brightest)


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

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of every image."""
        return self.preprocessing.image_shape

    @property
    def num_classes(self) -> int:
        """How many classes there are; labels are 0 to `num_classes` - 1."""
        return len(self.class_names)
