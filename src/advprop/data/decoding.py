"""Images that are decoded at each use, and augmented in training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from advprop.data.frames import Frame, FramedTransform, frames_of
from advprop.data.preprocessing import Augmentation, Preprocessing
from advprop.data.splits import ImageSplit, Key
from advprop.randomness import derive_seed, image_key, kept_streams, seed_streams
from advprop.shapes import Batch, StoredImages, unit_range

_ATTEMPTS = 10  # replacements tried for an unreadable image; the first half are of its class


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedSplit(ImageSplit):
    """Base class of splits whose images are decoded by Pillow; a source of images defines `read`.

    `per_image` names the fields of a source that have an entry for each image, beside `labels`.

    In training, images are augmented by random numbers that depend on (seed, epoch, index, copy)
    alone; a batch's `frames` give the position of each view in its source image. `views` make
    further versions of each image, stored under their names in a batch. With `max_unreadable` above
    0, an unreadable training image is replaced by another one; the batch lists it in `unreadable`,
    and `UnreadableTally` counts it.

    Raises ValueError for an augmentation that timm cannot build.
    """

    per_image: ClassVar[tuple[str, ...]] = ()

    labels: Int[Tensor, " num_images"] | Float[Tensor, "num_images labels"]
    preprocessing: Preprocessing
    augmentation: Augmentation | None = None
    views: Mapping[str, Augmentation] = field(default_factory=dict)
    seed: int = 0
    max_unreadable: float = 0.0

    def __post_init__(self) -> None:
        for augmentation in self._augmentations.values():
            augmentation.transform(self.preprocessing)  # raises here, not later in a worker

    @abstractmethod
    def read(self, index: int) -> Image.Image:
        """Return image `index`, upright, as "RGB" or "L" if `preprocessing` has 3 channels or 1.

        Raises ValueError, with the image's name, if it cannot be read.
        """

    def taken(self, positions: Sequence[int]) -> Self:
        """Return a split of the images at `positions`."""
        whole = {name: getattr(self, name) for name in ("labels", *self.per_image)}
        chosen: dict[str, Any] = {
            name: tuple(values[position] for position in positions)
            if isinstance(values, tuple)
            else values[list(positions)]
            for name, values in whole.items()
        }
        return replace(self, **chosen)

    def redrawn(self, names: Sequence[str]) -> ImageSplit:
        """Return a split whose images have further draws of their augmentation as views.

        Raises ValueError if images are not augmented.
        """
        if self.augmentation is None:
            return super().redrawn(names)
        return replace(self, views={**dict.fromkeys(names, self.augmentation), **self.views})

    def hashed_names(self) -> list[str]:
        """Return the names whose hashes determine subsets, and what is split off training."""
        return list(self.names())

    def header_problem(self, index: int) -> str | None:
        """Return the name of image `index` and its header's fault, or None if none is known."""
        return None

    def images(self, keys: Sequence[Key]) -> StoredImages:
        """Return the images of `keys`, as `__getitems__` does."""
        return self.__getitems__(keys).images

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        """Return the batch of `keys`, in bytes unless random erasing changes its images.

        Raises ValueError if an image can neither be read nor replaced by another.
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
        """Return the image of `wanted`, or of a replacement, and its key."""
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
        """Yield replacements for `wanted`, a function of (seed, epoch, index, copy)."""
        others = (self.labels == self.labels[wanted.index]).reshape(len(self), -1).all(dim=1)
        others[wanted.index] = False
        own_class = others.nonzero().flatten()
        # neither an ordinary copy nor another image's replacement has this number
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
        """Return memory for `count` images of a view: bytes, or floats if it erases parts."""
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
        """Return augmentations by view; "" stands for the images themselves."""
        return {**({"": self.augmentation} if self.augmentation else {}), **self.views}


def _copy(view: Tensor, room: Tensor) -> None:
    room.copy_(unit_range(view) if room.is_floating_point() else view)
