"""Which image files a folder holds, and of which class and split they are."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from advprop.data.listing.split_names import SPLIT_NAMES, split_name
from advprop.data.listing.walking import (
    ENDINGS_IN_WORDS,
    child_folders,
    entries_of,
    images_below,
    listed,
)

Classes: TypeAlias = dict[str, list[str]]
"""A class's name to the paths of its images, relative to the folder of classes; both sorted."""

MAX_CHECKED_FILES = 2000


def find_splits(root: Path) -> dict[str, Path]:
    """The folders of the splits in `root`, as far as there are; empty where it holds classes.

    They are called by the usual words (`split_names.SPLIT_NAMES`), or alike but for these words, as
    `train2017` and `val2017`. A class may be called "train" too: a folder with images of its own
    is a class. OSError: no such folder. ValueError: two folders for one split, or others without
    `train/`.
    """
    groups: dict[str, dict[str, list[Path]]] = {}
    for folder in child_folders(root):
        name = split_name(folder.name)
        if name is not None and not entries_of(folder).images:
            groups.setdefault(name.rest, {}).setdefault(name.split, []).append(folder)
    sets = [group for group in groups.values() if "train" in group and len(group) > 1]
    sets = [groups[""]] if "" in groups else sets  # plain words stand before all others
    found = sets[0] if sets else {}
    double = [folders for folders in found.values() if len(folders) > 1]
    if len(sets) > 1:
        double = [[folder for group in sets for folder in group["train"]]]
    if double:
        names = " and ".join(folder.name for folder in double[0])
        split = next(split for split, folders in found.items() if folders[0] in double[0])
        raise ValueError(
            f"{root} has {names} for the {split} split: keep one of them, or rename the others"
        )
    splits = {split: found[split][0] for split in SPLIT_NAMES if split in found}
    if splits and "train" not in splits:
        names = ", ".join(f"{folder.name}/" for folder in splits.values())
        raise ValueError(
            f"{root} has {names} but no train/: add it, or name a folder that holds a folder for "
            "each class"
        )
    return splits


def list_classes(folder: Path, passed_over: Counter[str] | None = None) -> Classes:
    """The classes in `folder` and their images, those in deeper folders included.

    `image_folder` tells what is passed over; it is counted in `passed_over`. Links are followed.
    OSError: no such folder. ValueError: no class, an empty one, two of one name, or images outside
    of the classes.
    """
    passed_over = Counter() if passed_over is None else passed_over
    class_folders = child_folders(folder, passed_over)
    if loose := entries_of(folder).images:
        raise ValueError(
            f"{len(loose)} images lie in {folder} itself ({shortened(loose, 3)}): move each into "
            "the folder of its class"
        )
    if not class_folders:
        raise ValueError(
            f"{folder} holds no images: a folder for each class is needed in it{_with(passed_over)}"
        )
    inside = Counter[str]()
    start = len(str(folder / "x")) - 1
    classes = {
        path.name: sorted(
            image[start:].replace(os.sep, "/") for image in images_below(path, inside)
        )
        for path in class_folders
    }
    if empty := [name for name, images in classes.items() if not images]:
        raise ValueError(
            f"no images for the class {shortened(empty)} in {folder}: fill or delete the folder "
            f"({ENDINGS_IN_WORDS}{_with(inside)})"
        )
    passed_over.update(inside)
    twice = Counter(map(same_name, classes))
    if doubles := [name for name in classes if twice[same_name(name)] > 1]:
        raise ValueError(
            f"{folder} has classes whose names differ only in how Unicode writes them "
            f"({', '.join(map(ascii, doubles[:4]))}): move their images into one folder"
        )
    return classes


def check_no_splits(folder: Path, classes: Classes) -> None:
    """Raise ValueError where the `classes` in `folder` look like splits of a data set."""
    names = [split_name(name) for name in classes]
    words = {name for name in names if name is not None}
    if None not in names and len(words) > 1 and len({word.rest for word in words}) == 1:
        raise ValueError(
            f"{folder} has {shortened(classes)}, which look like splits: each needs a folder for "
            "each class in it, with the images there"
        )
    nested = {
        name: {path.split("/")[1] for path in paths}
        for name, paths in classes.items()
        if not any(path.count("/") == 1 for path in paths)
    }
    common = set.intersection(*nested.values()) if nested else set()
    if len(common) > 1 and len(nested) > 1 and len(classes) <= 2 * len(nested):
        raise ValueError(
            f"{folder} has {shortened(nested)}, which hold no images themselves but the same "
            f"folders ({shortened(sorted(common), 3)}): they look like splits or parts of one data "
            "set. Call them train/, val/ and test/, or name the folder of one; where they are "
            "classes, move their images directly into them"
        )


def list_images(folder: Path) -> list[str]:
    """All images below `folder`, whatever folders they lie in, by their paths relative to it.

    OSError: no such folder. ValueError: no image there.
    """
    child_folders(folder)  # the message for one that is not there
    passed_over = Counter[str]()
    images = sorted(os.path.relpath(path, folder) for path in images_below(folder, passed_over))
    if not images:
        raise ValueError(
            f"{folder} holds no images: name another folder ({ENDINGS_IN_WORDS}"
            f"{_with(passed_over)})"
        )
    return images


def same_name(name: str) -> str:
    """`name` in one normal form: macOS and other systems write letters with accents differently."""
    return unicodedata.normalize("NFC", name)


def with_folder(folder: Path, classes: Classes) -> Classes:
    """The same `classes`, `folder` put before each path."""
    return {name: [f"{folder}/{path}" for path in paths] for name, paths in classes.items()}


def check_readable(count: int, problems: Iterable[str | None]) -> None:
    """Raise one ValueError that lists all `problems` of the headers of `count` images.

    Of more than `MAX_CHECKED_FILES` none is opened; they are named when training meets them.
    """
    if count <= MAX_CHECKED_FILES and (found := [problem for problem in problems if problem]):
        raise ValueError(
            f"{len(found)} of {count} images cannot be read:\n  "
            + shortened(found, separator="\n  ")
        )


def shortened(names: Iterable[str], limit: int = 10, separator: str = ", ") -> str:
    """The first `limit` of `names`, and how many more there are."""
    names = list(names)
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return separator.join(names[:limit] + more)


def _with(passed_over: Counter[str]) -> str:
    return f"; there are {shortened(listed(passed_over), 5)}" if passed_over else ""
