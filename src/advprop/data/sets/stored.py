"""Published test sets: images at their stored size or without their frame, and ImageNet-C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from advprop.data.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from advprop.data.listing.classes import (
    check_known,
    list_classes,
    same_name,
    shortened,
    with_folder,
)
from advprop.data.listing.walking import child_folders
from advprop.data.preprocessing import Preprocessing
from advprop.data.reading import image_size
from advprop.data.sets.folders import FileSplit

_LAYOUT = "CORRUPTION/SEVERITY/CLASS/images, as in gaussian_noise/1/n01440764/"


def as_stored(image_shape: tuple[int, int, int]) -> Preprocessing:
    """Return a preprocessing that neither resizes nor crops images of `image_shape`."""
    return Preprocessing(image_shape=image_shape, crop_pct=1.0, crop_mode="squash")


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredSplit(FileSplit):
    """Images in files, tested at their stored size; `preprocessing` is `as_stored`."""

    def read(self, index: int) -> Image.Image:
        """Return image `index`; raises ValueError if it is unreadable or of another size."""
        image = super().read(index)
        _, height, width = self.preprocessing.image_shape
        if image.size != (width, height):
            raise ValueError(
                f"{self.paths[index]} has {_in_pixels(image.size)}, others of its set have "
                f"{_in_pixels((width, height))}: these images are tested as they are stored, so "
                "all must have one size"
            )
        return image


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
    corruptions: Sequence[str],
    severities: Sequence[int],
) -> None:
    """Check the folders of all `corruptions` and `severities` in `root`.

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


def load_imagenet_c(folder: Path, *, class_names: Sequence[str], channels: int) -> StoredSplit:
    """Return the images in `folder`, of one corruption and severity; labels index `class_names`.

    Raises ValueError if a class is empty.
    """
    classes = with_folder(folder, list_classes(folder))
    width, height = image_size(next(iter(classes.values()))[0])
    as_it_is = as_stored((channels, height, width))
    return StoredSplit.of_classes(classes, class_names, preprocessing=as_it_is)


def _check_classes(folder: Path, class_names: Sequence[str]) -> None:
    found = {same_name(path.name) for path in child_folders(folder)}
    if not found:
        raise ValueError(f"{folder} holds no folders of classes: the layout is {_LAYOUT}")
    check_known(folder, sorted(found), class_names)
    if missing := sorted({same_name(name) for name in class_names} - found):
        raise ValueError(
            f"{folder} lacks {len(missing)} of the model's {len(class_names)} classes "
            f"({shortened(missing)}): unpack the set anew, errors on a part of the classes cannot "
            "be compared"
        )
