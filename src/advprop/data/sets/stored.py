"""Images of published test sets, used at their stored size or with their frame cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from advprop.data.listing.classes import MAX_CHECKED_FILES, shortened
from advprop.data.reading import image_size, read_image
from advprop.data.sets.folders import FileSplit
from advprop.data.splits import ImageSplit, Key
from advprop.shapes import Batch, Images, unit_range


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredSplit(ImageSplit):
    """Images in files, used at their stored size, which must be the same for all."""

    labels: Int[Tensor, " num_images"]
    root: Path
    paths: tuple[str, ...]  # relative to `root`
    image_shape: tuple[int, int, int]

    def images(self, keys: Sequence[Key]) -> Images:
        """Return the images of `keys`; raises ValueError if one is unreadable or of other size."""
        return unit_range(self._pixels(keys))

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of `keys`, in bytes."""
        return self.batch_of(keys, self._pixels(keys))

    def _pixels(self, keys: Sequence[Key]) -> UInt8[Tensor, "batch C H W"]:
        images = torch.empty(len(keys), *self.image_shape, dtype=torch.uint8)
        for image, key in zip(images, keys, strict=True):
            path = self.root / self.paths[Key(*key).index]
            picture = read_image(path, channels=self.image_shape[0])
            if picture.size != self._size:
                raise ValueError(self._problem([f"{path} has {_pixels(picture.size)}"]))
            image.copy_(pil_to_tensor(picture))
        return images

    def check_sizes(self) -> None:
        """Raise one ValueError that lists files of another size; also if a header is unreadable.

        At most `MAX_CHECKED_FILES` files, spread over the split, are checked here; `images` checks
        the size of each file that it reads.
        """
        wrong = []
        for name in self.paths[:: -(-len(self.paths) // MAX_CHECKED_FILES)]:
            size = image_size(self.root / name)
            if size != self._size:
                wrong.append(f"{self.root / name} has {_pixels(size)}")
        if wrong:
            raise ValueError(self._problem(wrong))

    @property
    def _size(self) -> tuple[int, int]:
        return self.image_shape[2], self.image_shape[1]

    def _problem(self, wrong: Sequence[str]) -> str:
        return (
            f"{shortened(wrong, 3)}, others of its set have {_pixels(self._size)}: these images "
            "are tested as they are stored, so all must have one size"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FramedSplit(FileSplit):
    """Images surrounded by a frame of `frame` pixels, which is cut off first."""

    frame: int

    def read(self, index: int) -> Image.Image:
        """Return image `index` without its frame; raises ValueError if nothing is left."""
        image = super().read(index)
        width, height = image.size
        if min(width, height) <= 2 * self.frame:
            raise ValueError(
                f"{self.paths[index]} has {_pixels(image.size)}, all of them a frame of "
                f"{self.frame}: take the set as it was published"
            )
        return image.crop((self.frame, self.frame, width - self.frame, height - self.frame))


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"
