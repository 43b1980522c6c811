"""Any folder of images as a data set."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from PIL import Image

from advprop.data.decoding import DecodedSplit
from advprop.data.listing import (
    Classes,
    check_readable,
    list_classes,
    same_name,
    shortened,
    with_folder,
)
from advprop.data.preprocessing import Augmentation, Interpolation, Preprocessing
from advprop.data.reading import read_image
from advprop.data.selection import first_stratified
from advprop.data.sources import MAX_COMPARED_BYTES, ImageData
from advprop.data.splitting import list_splits


@dataclass(frozen=True, kw_only=True, eq=False)
class FileSplit(DecodedSplit):
    """Images in files, read anew each time."""

    paths: tuple[str, ...]

    def read(self, index: int) -> Image.Image:
        """The image in file `index`; ValueError names a file that cannot be read."""
        return read_image(self.paths[index], channels=self.preprocessing.image_shape[0])

    def names(self) -> list[str]:
        """Paths below the folder that all of them have in common, that of the classes."""
        common = os.path.commonpath([min(self.paths), max(self.paths)])
        return [path[len(common) :].strip("/") for path in self.paths]

    def stored(self, index: int) -> bytes:
        """The file's first bytes."""
        with open(self.paths[index], "rb") as file:
            return file.read(MAX_COMPARED_BYTES)

    def stored_size(self, index: int) -> int:
        """The file's size."""
        return os.stat(self.paths[index]).st_size


def load_folder(
    root: str | Path,
    *,
    image_size: int,
    channels: int = 3,
    num_train: int | None = None,
    augmentation: Augmentation | None = None,
    views: Mapping[str, Augmentation] | None = None,
    interpolation: Interpolation = "bicubic",
    crop_pct: float = 0.875,
    seed: int = 0,
    max_unreadable: float = 0.0,
) -> ImageData:
    """A folder of images: `train/`, `val/`, perhaps `test/`, each with a folder for each class.

    Without `val/`, validation is shared off `train/`; a folder for each class directly in `root`
    (or in a lone `train/`) is shared out to all three, about 70, 15 and 15 in a hundred of each
    class, by a hash of the path in it. `test` is None where there are `train/` and `val/` alone.
    Images are square, of `image_size` pixels; `augmentation` is for training, seeded by `seed`, and
    `views` make further versions of each image, by the branch that learns from them. `num_train`
    trains on fewer, in proportion to the classes. `max_unreadable` is the share of the training
    images that may be unreadable; others stand in for them.

    OSError: no such folder. ValueError: one class only, empty or differing classes, too few images,
    unreadable files (all in one message), settings out of bounds.
    """
    preprocessing = Preprocessing.square(image_size, channels, interpolation, crop_pct)
    root = Path(root)
    listed, origin = list_splits(root)
    class_names = tuple(listed["train"])
    splits = {
        name: _file_split(classes, class_names, preprocessing) for name, classes in listed.items()
    }
    train = replace(_subset(splits["train"], num_train), augmentation=augmentation)
    train = replace(train, views=views or {}, seed=seed, max_unreadable=max_unreadable)
    checked = [split for name, split in splits.items() if name != "train" or not max_unreadable]
    check_readable(path for split in checked for path in split.paths)
    return ImageData(
        name=root.resolve().name,
        class_names=class_names,
        preprocessing=preprocessing,
        train=train,
        validation=splits["validation"],
        test=splits.get("test"),
        origin=origin,
    )


def load_test_folder(
    root: str | Path, *, class_names: Sequence[str], preprocessing: Preprocessing
) -> FileSplit:
    """A folder for each class in `root`, to test a trained model on; labels follow `class_names`.

    It may hold fewer classes than the model knows. OSError: no such folder. ValueError: a class
    that the model does not know, an empty one, or unreadable files.
    """
    classes = list_classes(Path(root))
    known = set(map(same_name, class_names))
    if unknown := [name for name in classes if same_name(name) not in known]:
        raise ValueError(
            f"{root} has {len(unknown)} classes that the model does not know "
            f"({shortened(unknown)}); it knows {shortened(class_names)}"
        )
    split = _file_split(with_folder(Path(root), classes), class_names, preprocessing)
    check_readable(split.paths)
    return split


def _subset(split: FileSplit, num_train: int | None) -> FileSplit:
    """The first `num_train` images of a stratified order, sorted again by path."""
    if num_train is None:
        return split
    # the hash is of class and file name, so that moving the whole folder changes nothing
    names = ["/".join(Path(path).parts[-2:]) for path in split.paths]
    chosen = sorted(first_stratified(split.labels.tolist(), names, num_train))
    paths = tuple(split.paths[position] for position in chosen)
    return replace(split, paths=paths, labels=split.labels[chosen])


def _file_split(
    classes: Classes,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
) -> FileSplit:
    label_of = {same_name(name): label for label, name in enumerate(class_names)}
    labels = [label_of[same_name(name)] for name, paths in classes.items() for _ in paths]
    return FileSplit(
        paths=tuple(chain.from_iterable(classes.values())),
        labels=torch.tensor(labels),
        preprocessing=preprocessing,
    )
