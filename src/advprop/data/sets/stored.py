"""Published test sets: images at their stored size or without their frame, and ImageNet-C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import Int, UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from advprop.data.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from advprop.data.listing.classes import MAX_CHECKED_FILES, list_classes, same_name, shortened
from advprop.data.listing.walking import child_folders
from advprop.data.reading import image_size, read_image
from advprop.data.sets.folders import FileSplit
from advprop.data.splits import ImageSplit, Key
from advprop.shapes import Batch, Images, unit_range

_LAYOUT = "CORRUPTION/SEVERITY/CLASS/images, as in gaussian_noise/1/n01440764/"


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredSplit(ImageSplit):
    """Images in files, tested at their stored size, which must be the same for all."""

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
                raise ValueError(self._problem([f"{path} has {_in_pixels(picture.size)}"]))
            image.copy_(pil_to_tensor(picture))
        return images

    def check_sizes(self) -> None:
        """Raise ValueError for an unreadable header, or one that lists images of another size.

        At most `MAX_CHECKED_FILES` files, spread over the split, are checked here; `images` checks
        the size of each file that it reads.
        """
        wrong = []
        for name in self.paths[:: -(-len(self.paths) // MAX_CHECKED_FILES)]:
            size = image_size(self.root / name)
            if size != self._size:
                wrong.append(f"{self.root / name} has {_in_pixels(size)}")
        if wrong:
            raise ValueError(self._problem(wrong))

    @property
    def _size(self) -> tuple[int, int]:
        return self.image_shape[2], self.image_shape[1]

    def _problem(self, wrong: Sequence[str]) -> str:
        return (
            f"{shortened(wrong, 3)}, others of its set have {_in_pixels(self._size)}: these images "
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
                f"{self.paths[index]} has {_in_pixels(image.size)}, all of them a frame of "
                f"{self.frame}: take the set as it was published"
            )
        return image.crop((self.frame, self.frame, width - self.frame, height - self.frame))


def _in_pixels(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]} pixels"


@dataclass(frozen=True, kw_only=True)
class ImageNetC:
    """A folder of corrupted images whose layout was checked; `split` lists its images."""

    root: Path
    class_names: tuple[str, ...]
    channels: int

    def split(self, corruption: str, severity: int) -> StoredSplit:
        """Return the images of one corruption and severity; raises ValueError if there are none."""
        folder = self.root / corruption / str(severity)
        classes = list_classes(folder)
        label_of = {same_name(name): label for label, name in enumerate(self.class_names)}
        paths = tuple(chain.from_iterable(classes.values()))
        width, height = image_size(folder / paths[0])
        return StoredSplit(
            root=folder,
            paths=paths,
            labels=torch.tensor(
                [label_of[same_name(name)] for name in classes for _ in classes[name]]
            ),
            image_shape=(self.channels, height, width),
        )


def is_imagenet_c(root: Path, class_names: Sequence[str]) -> bool:
    """Return whether `root` holds folders of corruptions rather than of classes.

    A class may have a corruption's name, as "fog". Raises OSError if `root` is no folder.
    """
    known = {*CORRUPTIONS, *EXTRA_CORRUPTIONS}
    return any(
        folder.name in known
        and (folder.name not in class_names or any(f.name.isdigit() for f in child_folders(folder)))
        for folder in child_folders(root)
    )


def check_imagenet_c(
    root: Path,
    *,
    class_names: Sequence[str],
    channels: int,
    corruptions: Sequence[str],
    severities: Sequence[int],
) -> ImageNetC:
    """Return the set in `root`; checks the folders of all `corruptions` and `severities`.

    Raises OSError if `root` is no folder, and ValueError if a corruption, severity or class is
    missing, or a class is unknown to the model.
    """
    if missing := [name for name in corruptions if not (root / name).is_dir()]:
        raise ValueError(
            f"{root} lacks {len(missing)} of {len(corruptions)} corruptions ({shortened(missing)}):"
            f" add them (the layout is {_LAYOUT}), or name those to test in evaluation.corruptions"
        )
    wanted = [root / name / str(severity) for name in corruptions for severity in severities]
    if absent := [str(f.relative_to(root)) for f in wanted if not f.is_dir()]:
        raise ValueError(
            f"{root} lacks {len(absent)} of {len(wanted)} severities ({shortened(absent)}): add "
            f"them (the layout is {_LAYOUT}), or name those to test in "
            "evaluation.corruption_severities"
        )
    for folder in wanted:
        _check_classes(folder, class_names)
    return ImageNetC(root=root, class_names=tuple(class_names), channels=channels)


def _check_classes(folder: Path, class_names: Sequence[str]) -> None:
    found = {same_name(path.name) for path in child_folders(folder)}
    class_names = [same_name(name) for name in class_names]
    if not found:
        raise ValueError(f"{folder} holds no folders of classes: the layout is {_LAYOUT}")
    if unknown := sorted(found - set(class_names)):
        raise ValueError(
            f"{folder} has {len(unknown)} classes that the model does not know "
            f"({shortened(unknown)}); it knows {shortened(class_names)}"
        )
    if missing := sorted(set(class_names) - found):
        raise ValueError(
            f"{folder} lacks {len(missing)} of the model's {len(class_names)} classes "
            f"({shortened(missing)}): unpack the set anew, errors on a part of the classes cannot "
            "be compared"
        )
