"""Load any folder of images as a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from PIL import Image

from advprop.data.decoding import DecodedSplit
from advprop.data.listing.classes import (
    Classes,
    check_known,
    list_classes,
    same_name,
    with_folder,
)
from advprop.data.listing.sharing import list_splits
from advprop.data.preprocessing import Preprocessing
from advprop.data.reading import header_problem, read_image
from advprop.data.splits import MAX_COMPARED_BYTES, ImageData
from advprop.data.view import View, check_splits, image_data


@dataclass(frozen=True, kw_only=True, eq=False)
class FileSplit(DecodedSplit):
    """Images in files, read again at each use."""

    per_image: ClassVar[tuple[str, ...]] = ("paths",)

    paths: tuple[str, ...]

    @classmethod
    def of_classes(cls, classes: Classes, class_names: Sequence[str], **settings: Any) -> Self:
        """Return the images of `classes`; their labels are places in `class_names`.

        `settings` are the other fields of the split.
        """
        label_of = {same_name(name): label for label, name in enumerate(class_names)}
        labels = [label_of[same_name(name)] for name, paths in classes.items() for _ in paths]
        paths = tuple(chain.from_iterable(classes.values()))
        return cls(paths=paths, labels=torch.tensor(labels), **settings)

    def read(self, index: int) -> Image.Image:
        """Return the image in file `index`; raises ValueError if it cannot be read."""
        return read_image(self.paths[index], channels=self.preprocessing.image_shape[0])

    def names(self) -> list[str]:
        """Return the paths relative to their common folder, which holds the classes."""
        common = os.path.commonpath([min(self.paths), max(self.paths)])
        return [path[len(common) :].strip("/") for path in self.paths]

    def hashed_names(self) -> list[str]:
        """Return each image's class and file name, which stay the same if the folder is moved."""
        return ["/".join(Path(path).parts[-2:]) for path in self.paths]

    def header_problem(self, index: int) -> str | None:
        """Return the file's name and the fault of its header, or None if there is none."""
        return header_problem(self.paths[index])

    def stored(self, index: int) -> bytes:
        """Return the file's first bytes, at most `MAX_COMPARED_BYTES`."""
        with open(self.paths[index], "rb") as file:
            return file.read(MAX_COMPARED_BYTES)

    def stored_size(self, index: int) -> int:
        """Return the file's size in bytes."""
        return os.stat(self.paths[index]).st_size


def load_folder(root: str | Path, view: View) -> ImageData:
    """Load a folder with `train/`, `val/` and perhaps `test/`, each with a folder for each class.

    Without `val/`, validation images are split off `train/`. If `root` holds the folders of the
    classes directly (or `train/` alone), about 70, 15 and 15 % of each class go to training,
    validation and test, by a hash of the path. With `train/` and `val/` alone, `test` is None.

    Raises OSError if `root` is no folder; ValueError if there is one class only, a class is empty,
    splits have different classes, or as `image_data` does.
    """
    root = Path(root)
    listed, origin = list_splits(root)
    class_names = tuple(listed["train"])
    splits = {
        name: FileSplit.of_classes(classes, class_names, preprocessing=view.preprocessing)
        for name, classes in listed.items()
    }
    name = root.resolve().name
    return image_data(splits, view, name=name, class_names=class_names, origin=origin)


def load_test_folder(
    root: str | Path, *, class_names: Sequence[str], preprocessing: Preprocessing
) -> FileSplit:
    """Load `root`, with a folder for each class, to test a model; labels index `class_names`.

    It may hold fewer classes than the model knows. Raises OSError if `root` is no folder, and
    ValueError if a class is unknown to the model or empty, or files are unreadable.
    """
    root = Path(root)
    classes = list_classes(root)
    check_known(root, classes, class_names)
    split = FileSplit.of_classes(
        with_folder(root, classes), class_names, preprocessing=preprocessing
    )
    check_splits(split)
    return split
