"""Which image files a folder holds, and of which class and split they are."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from advprop.data.reading import IMAGE_ENDINGS, header_problem

Classes: TypeAlias = dict[str, list[str]]
"""A class's name to the paths of its images, relative to the folder of classes; both sorted."""

SPLIT_NAMES = {
    "train": ("train",),
    "validation": ("val", "valid", "validation"),
    "test": ("test",),
}
MAX_CHECKED_FILES = 2000


def find_splits(root: Path) -> dict[str, Path]:
    """The folders of the splits in `root`, as far as there are; empty where it holds classes.

    A class may be called "train" too: a folder with images of its own is a class.
    OSError: no such folder. ValueError: two folders for one split, or others without `train/`.
    """
    splits: dict[str, Path] = {}
    folders = child_folders(root)
    for split, names in SPLIT_NAMES.items():
        named = [folder for folder in folders if folder.name.lower() in names]
        found = [folder for folder in named if not _images_directly_in(folder)]
        if len(found) > 1:
            listed = " and ".join(folder.name for folder in found)
            raise ValueError(f"{root} has {listed} for the {split} split: keep one of them")
        if found:
            splits[split] = found[0]
    if splits and "train" not in splits:
        listed = ", ".join(f"{folder.name}/" for folder in splits.values())
        raise ValueError(
            f"{root} has {listed} but no train/: add it, or name a folder that holds a folder for "
            "each class"
        )
    return splits


def list_classes(folder: Path) -> Classes:
    """The classes in `folder` and their images, those in deeper folders included.

    Hidden files and other endings than `IMAGE_ENDINGS` are passed over, links are followed.
    OSError: no such folder. ValueError: no class, an empty one, or images outside of the classes.
    """
    class_folders = child_folders(folder)
    if loose := _images_directly_in(folder):
        raise ValueError(
            f"{len(loose)} images lie in {folder} itself ({shortened(loose, 3)}): move each into "
            "the folder of its class"
        )
    if not class_folders:
        raise ValueError(f"{folder} holds no images: a folder for each class is needed in it")
    classes = {path.name: _images_below(path, folder) for path in class_folders}
    if empty := [name for name, images in classes.items() if not images]:
        raise ValueError(
            f"no images for the class {shortened(empty)} in {folder}: fill or delete the folder "
            f"(images end in {', '.join(sorted(IMAGE_ENDINGS))})"
        )
    return classes


def list_images(folder: Path) -> list[str]:
    """All images below `folder`, whatever folders they lie in, by their paths relative to it.

    OSError: no such folder. ValueError: no image there.
    """
    child_folders(folder)  # the message for one that is not there
    if not (images := _images_below(folder, folder)):
        raise ValueError(
            f"{folder} holds no images: name another folder "
            f"(images end in {', '.join(sorted(IMAGE_ENDINGS))})"
        )
    return [str(Path(image)) for image in images]


def with_folder(folder: Path, classes: Classes) -> Classes:
    """The same `classes`, `folder` put before each path."""
    return {name: [f"{folder}/{path}" for path in paths] for name, paths in classes.items()}


def check_readable(paths: Iterable[str]) -> None:
    """One ValueError that lists all files whose header cannot be read.

    Of more than `MAX_CHECKED_FILES` none is opened; they are named when training meets them.
    """
    paths = list(paths)
    if len(paths) > MAX_CHECKED_FILES:
        return
    if problems := [problem for path in paths if (problem := header_problem(path))]:
        raise ValueError(
            f"{len(problems)} of {len(paths)} images cannot be read:\n  "
            + shortened(problems, separator="\n  ")
        )


def shortened(names: Iterable[str], limit: int = 10, separator: str = ", ") -> str:
    """The first `limit` of `names`, and how many more there are."""
    names = list(names)
    more = [f"and {len(names) - limit} more"] if len(names) > limit else []
    return separator.join(names[:limit] + more)


def child_folders(folder: Path) -> list[Path]:
    """The visible folders in `folder`, sorted. OSError: no such folder."""
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}: check the path")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder: name one with a folder for each class")
    with os.scandir(folder) as entries:
        found = [Path(entry) for entry in entries if entry.is_dir() and _is_visible(entry.name)]
    return sorted(found)


def _images_directly_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if _is_image(e.name) and not e.is_dir())


def _images_below(class_folder: Path, root: Path) -> list[str]:
    """Paths relative to `root` with forward slashes; a loop of links is walked once."""
    found: list[str] = []
    seen: set[str] = set()
    for place, folders, files in os.walk(class_folder, followlinks=True, onerror=_reraise):
        seen.add(os.path.realpath(place))
        folders[:] = [
            name
            for name in folders
            if _is_visible(name) and os.path.realpath(os.path.join(place, name)) not in seen
        ]
        relative = Path(place).relative_to(root).as_posix()
        found += [f"{relative}/{name}" for name in files if _is_image(name)]
    return sorted(found)


def _is_visible(name: str) -> bool:
    return not name.startswith(".")


def _is_image(name: str) -> bool:
    return _is_visible(name) and os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def _reraise(error: OSError) -> None:
    raise error
