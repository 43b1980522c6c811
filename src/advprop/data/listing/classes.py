"""Find the splits and the classes in a folder of images."""

from __future__ import annotations

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
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
"""The sorted paths of each class's images, relative to the folder of classes, by class name."""

MAX_CHECKED_FILES = 2000


def find_splits(root: Path) -> dict[str, Path]:
    """Return the folders of the splits in `root`; an empty mapping if `root` holds classes.

    Folders of splits have the usual names (`split_names.SPLIT_NAMES`), or these with the same text
    added to all, as `train2017` and `val2017`. A folder that holds images directly is a class, even
    if it is called "train". Raises OSError if `root` is no folder, and ValueError if two folders
    fit one split or `train/` is missing.
    """
    groups: dict[str, dict[str, list[Path]]] = {}
    for folder in child_folders(root):
        name = split_name(folder.name)
        if name is not None and not entries_of(folder).images:
            groups.setdefault(name.rest, {}).setdefault(name.split, []).append(folder)
    sets = [group for group in groups.values() if "train" in group and len(group) > 1]
    sets = [groups[""]] if "" in groups else sets  # plain names take precedence over all others
    splits: dict[str, Path] = {}
    for split in SPLIT_NAMES:
        folders = [folder for group in sets for folder in group.get(split, ())]
        if len(folders) > 1:
            names = " and ".join(folder.name for folder in folders)
            raise ValueError(
                f"{root} has {names} for the {split} split: keep one of them, or rename the others"
            )
        if folders:
            splits[split] = folders[0]
    if splits and "train" not in splits:
        names = ", ".join(f"{folder.name}/" for folder in splits.values())
        raise ValueError(
            f"{root} has {names} but no train/: add it, or name a folder that holds a folder for "
            "each class"
        )
    return splits


def list_classes(folder: Path, passed_over: Counter[str] | None = None) -> Classes:
    """Return the classes in `folder` and their images, including those in deeper folders.

    Skipped entries (see `walking.entries_of`) are counted in `passed_over`. Links are followed.
    Raises OSError if `folder` is no folder, and ValueError if there is no class, an empty class,
    two classes of one name, or an image outside of the classes.
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
    """Raise ValueError if the `classes` in `folder` look like splits of a data set."""
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
            "set. Call them train/, val/ and test/, or name the folder of one; if they are "
            "classes, move their images directly into them"
        )


def check_known(folder: Path, names: Iterable[str], class_names: Sequence[str]) -> None:
    """Raise ValueError if `class_names`, those of a model, lack one of `names` in `folder`."""
    known = set(map(same_name, class_names))
    if unknown := [name for name in names if same_name(name) not in known]:
        raise ValueError(
            f"{folder} has {len(unknown)} classes that the model does not know "
            f"({shortened(unknown)}); it knows {shortened(class_names)}"
        )


def list_images(folder: Path) -> list[str]:
    """Return the sorted paths, relative to `folder`, of all images at any depth below it.

    Raises OSError if `folder` is no folder, and ValueError if it holds no image.
    """
    child_folders(folder)  # raises the error for a missing folder
    passed_over = Counter[str]()
    images = sorted(os.path.relpath(path, folder) for path in images_below(folder, passed_over))
    if not images:
        raise ValueError(
            f"{folder} holds no images: name another folder ({ENDINGS_IN_WORDS}"
            f"{_with(passed_over)})"
        )
    return images


def same_name(name: str) -> str:
    """Return `name` in Unicode's form NFC, since systems write accented letters differently."""
    return unicodedata.normalize("NFC", name)


def with_folder(folder: Path, classes: Classes) -> Classes:
    """Return `classes` with `folder` put before each path."""
    return {name: [f"{folder}/{path}" for path in paths] for name, paths in classes.items()}


def check_readable(count: int, problems: Iterable[str | None]) -> None:
    """Raise one ValueError that lists the `problems` found in the headers of `count` images.

    With more than `MAX_CHECKED_FILES` images, `problems` is not iterated, so no file is opened.
    """
    if count <= MAX_CHECKED_FILES and (found := [problem for problem in problems if problem]):
        raise ValueError(
            f"{len(found)} of {count} images cannot be read:\n  "
            + shortened(found, separator="\n  ")
        )


def shortened(names: Iterable[str], limit: int = 10, separator: str = ", ") -> str:
    """Return the first `limit` of `names` as text, and how many more there are."""
    names = list(names)
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return separator.join(names[:limit] + more)


def _with(passed_over: Counter[str]) -> str:
    return f"; there are {shortened(listed(passed_over), 5)}" if passed_over else ""
