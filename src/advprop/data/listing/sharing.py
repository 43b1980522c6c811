"""Divide a folder's images into training, validation and test, by its layout or by a fixed rule."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from advprop.data.listing.classes import (
    Classes,
    check_no_splits,
    find_splits,
    list_classes,
    same_name,
    shortened,
    with_folder,
)
from advprop.data.listing.selection import shared_positions
from advprop.data.listing.walking import OTHER_PICTURES, entries_of, ranked
from advprop.data.splits import Origin

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
"""The share of each class that each split gets in a folder without splits."""


def list_splits(root: Path) -> tuple[dict[str, Classes], Origin]:
    """Return the classes of "train", "validation" and, if there is one, "test", and their origin.

    Missing splits are split off "train" as `folders.load_folder` describes. All splits have the
    names and order of its classes. Raises OSError if `root` is no folder, and ValueError if its
    folders do not form consistent splits.
    """
    folders, passed_over = find_splits(root), Counter[str]()
    whole = folders.get("train", root)
    train = _several_classes(whole, passed_over)
    if folders:
        _count_unused(root, folders, passed_over)
    splits = {
        name: with_folder(path, _in_order_of(train, list_classes(path, passed_over), path))
        for name, path in folders.items()
        if name != "train"
    }
    given = {name: f"{path.name}/" for name, path in folders.items()}
    if "validation" in splits:
        splits = {"train": with_folder(whole, train), **splits}
    else:
        shares = {name: SHARES[name] for name in SHARES if name not in splits}
        splits = {**_shared_out(whole, train, shares), **splits}
    return splits, Origin(
        splits=sources_in_words(given or {"train": "one folder"}, "file names"),
        passed_over=ranked(passed_over),
        notes=_unread_pictures(passed_over),
    )


def sources_in_words(given: Mapping[str, str], hashed: str) -> dict[str, str]:
    """Return the source of each split in words: as `given`, or split off "train" by a hash."""
    if "validation" in given:
        return dict(given)
    shared = f"split off {given['train']} by a hash of the {hashed}"
    return dict.fromkeys(SHARES, shared) | dict(given) | {"train": f"the rest of {given['train']}"}


def _several_classes(folder: Path, passed_over: Counter[str]) -> Classes:
    classes = list_classes(folder, passed_over)
    if len(classes) == 1:
        raise ValueError(
            f"{folder} has one class only ({next(iter(classes))}): at least 2 are needed; name the "
            "folder that holds train/ and val/, or a folder for each class"
        )
    check_no_splits(folder, classes)
    return classes


def _count_unused(root: Path, folders: Mapping[str, Path], passed_over: Counter[str]) -> None:
    """Count the other folders and the images that lie beside the splits."""
    beside = f"beside {folders['train'].name}/"
    images, names = entries_of(root, passed_over)
    for name in sorted(set(names) - {folder.name for folder in folders.values()}):
        passed_over[f"folder {name}/ {beside}"] += 1
    if images:
        passed_over[f"images {beside}"] = len(images)


def _unread_pictures(passed_over: Counter[str]) -> tuple[str, ...]:
    endings = {ending: passed_over[f"{ending} files"] for ending in sorted(OTHER_PICTURES)}
    if not (count := sum(endings.values())):
        return ()
    listed = ", ".join(ending for ending, number in endings.items() if number)
    pictures = "picture is" if count == 1 else "pictures are"
    return (f"{count:,} {pictures} not used, Pillow reads no {listed}: convert to .jpg",)


def _shared_out(folder: Path, classes: Classes, shares: Mapping[str, float]) -> dict[str, Classes]:
    names = [name for name, own in classes.items() for _ in own]
    paths = [path for own in classes.values() for path in own]
    parts = shared_positions(names, paths, shares, f" in {folder}")
    splits: dict[str, Classes] = {part: {name: [] for name in classes} for part in shares}
    for part, positions in parts.items():
        for position in positions:
            splits[part][names[position]].append(f"{folder}/{paths[position]}")
    return splits


def _in_order_of(train: Classes, classes: Classes, folder: Path) -> Classes:
    """Return `classes` with the names and order of `train`; raises ValueError if they differ."""
    own = {same_name(name): paths for name, paths in classes.items()}
    wanted = {same_name(name): name for name in train}
    missing = sorted(wanted.keys() - own.keys())
    unknown = sorted(own.keys() - wanted.keys())
    if missing or unknown:
        problems = [f"without {shortened(missing)}"] * bool(missing)
        problems += [f"with {shortened(unknown)}, which train/ lacks"] * bool(unknown)
        raise ValueError(
            f"{folder} has other classes than train/: {', and '.join(problems)}; give both the "
            "same folders"
        )
    return {name: own[known] for known, name in wanted.items()}
