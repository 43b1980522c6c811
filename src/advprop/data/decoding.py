"""Images that are decoded each time they are asked for, and augmented in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Self

import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from advprop.data.batches.unreadable import check_max_unreadable
from advprop.data.frames import Frame, FramedTransform, frames_of
from advprop.data.preprocessing import Augmentation, Preprocessing
from advprop.data.splits import ImageSplit, Key
from advprop.randomness import derive_seed, image_key, kept_streams, seed_streams
from advprop.shapes import Batch, Images, StoredImages, unit_range

_ATTEMPTS = 10  # images tried in the place of one that cannot be read; the first half of its class


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedSplit(ImageSplit):
    """Images that `read` gives as Pillow's, by index; all else is the same for every source.

    In an epoch they are augmented, by random numbers that depend on (seed, epoch, index, copy)
    alone; a batch's `frames` say where in the images its views lie. `views` make further versions
    of each image, under their names in a batch. With `max_unreadable` above 0, another image stands
    in for one of training that cannot be read, as one more copy of itself; batches say so, and
    `UnreadableTally` counts.
    """

    labels: Int[Tensor, " num_images"]
    preprocessing: Preprocessing
    augmentation: Augmentation | None = None
    views: Mapping[str, Augmentation] = field(default_factory=dict)
    seed: int = 0
    max_unreadable: float = 0.0

    def __post_init__(self) -> None:
        check_max_unreadable(self.max_unreadable)
        for augmentation in self._augmentations.values():
            augmentation.transform(self.preprocessing)  # a wrong setting shows now, not in a worker

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Image `index`, upright, "RGB" or "L" as `preprocessing` has 3 channels or 1.

        ValueError: it cannot be read; the message names it.
        """

    @abstractmethod
    def taken(self, positions: Sequence[int]) -> Self:
        """The images at `positions` alone."""

    def hashed_names(self) -> list[str]:
        """What an image is known by where a hash decides: shared-off parts, smaller choices."""
        return list(self.names())

    def header_problem(self, index: int) -> str | None:
        """The name of image `index` and what is wrong with its first bytes; None: nothing known."""
        return None

    def images(self, keys: Sequence[Key]) -> Images:
        """The images of `keys`; ValueError names one that cannot be read."""
        return unit_range(self.__getitems__(keys).images)

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """The batch of `keys`, in bytes where nothing is erased from its images.

        Others stand in for unreadable images as far as that is allowed.
        """
        images, *views = (self._room(len(keys), name) for name in ("", *self.views))
        shown: list[Key] = []
        frames: list[Frame] = []
        unreadable: list[str] = []
        with kept_streams():
            for image, wanted, *versions in zip(images, keys, *views, strict=True):
                key, picture = self._readable(Key(*wanted), unreadable)
                view, frame = self._view(picture, key)
                _copy(view, image)
                for version, name in zip(versions, self.views, strict=True):
                    _copy(self._view(picture, key, name)[0], version)
                shown.append(key)
                frames.append(frame)
        return replace(
            self.batch_of(shown, images, unreadable),
            views=dict(zip(self.views, views, strict=True)),
            frames=frames_of(frames),
        )

    def _readable(self, wanted: Key, unreadable: list[str]) -> tuple[Key, Image.Image]:
        """The image of `wanted` or one that stands in for it, and its key."""
        if wanted.epoch is None or not self.max_unreadable:
            return wanted, self.read(wanted.index)
        problems: list[str] = []
        for key in chain((wanted,), self._others(wanted)):
            try:
                picture = self.read(key.index)
            except ValueError as error:
                problems.append(str(error))
            else:
                unreadable += problems
                return key, picture
        raise ValueError(
            f"{problems[0]}; nor can {_ATTEMPTS} other images that were tried in its place: check "
            "that the storage is still there"
        )

    def _others(self, wanted: Key) -> Iterator[Key]:
        """Keys that may stand in for `wanted`, a function of (seed, epoch, index, copy)."""
        others = self.labels == self.labels[wanted.index]
        others[wanted.index] = False
        own_class = others.nonzero().flatten()
        # no copy of an ordinary epoch has so high a number, and no other image's stand-in has it
        copy = len(self) * (1 + wanted.copy) + wanted.index
        key = image_key(self.seed, wanted.epoch or 0, wanted.index, wanted.copy)
        for attempt in range(_ATTEMPTS):
            place = derive_seed(*key, "stand-in", attempt)
            if attempt < _ATTEMPTS // 2 and len(own_class):
                index = int(own_class[place % len(own_class)])
            else:
                index = place % len(self)
            yield Key(wanted.epoch, index, copy)

    def _room(self, count: int, name: str) -> StoredImages:
        """Memory for a version of `count` images: bytes, unless erasing draws other colours."""
        augmentation = self._augmentations.get(name)
        erases = augmentation is not None and augmentation.random_erasing > 0
        kind = torch.float32 if erases else torch.uint8
        return torch.empty(count, *self.preprocessing.image_shape, dtype=kind)

    def _view(self, picture: Image.Image, key: Key, name: str = "") -> tuple[Tensor, Frame]:
        if key.epoch is None or name not in self._transforms:
            return self.preprocessing.framed(picture)
        augmentation, transform = self._transforms[name]
        purpose = f"augmentation {name}".rstrip()
        seed_streams(*image_key(self.seed, key.epoch, key.index, key.copy), purpose)
        pixels, frame = transform(picture)
        return augmentation.erase(pixels), frame

    @cached_property
    def _transforms(self) -> dict[str, tuple[Augmentation, FramedTransform]]:
        return {
            name: (augmentation, FramedTransform(augmentation.transform(self.preprocessing)))
            for name, augmentation in self._augmentations.items()
        }

    @property
    def _augmentations(self) -> dict[str, Augmentation]:
        """By the view's name, "" for the images themselves."""
        return {**({"": self.augmentation} if self.augmentation else {}), **self.views}


def _copy(view: Tensor, room: Tensor) -> None:
    room.copy_(unit_range(view) if room.is_floating_point() else view)
