"""A folder's images in training, validation and test: as they are laid out, or by a fixed rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from advprop.data.listing import Classes, find_splits, list_classes, shortened, with_folder
from advprop.data.selection import shared_out

SHARES = {"train": 0.70, "validation": 0.15, "test": 0.15}
"""How a folder without splits is shared out, in each class."""


def list_splits(root: Path) -> dict[str, Classes]:
    """The classes and files of each split: "train", "validation" and, where there is one, "test".

    What is missing is shared off, as `folders.load_folder` describes; all splits have the same
    classes. OSError: no such folder. ValueError: folders that make no sensible splits.
    """
    folders = find_splits(root)
    if len(folders) <= 1:
        folder = folders.get("train", root)
        return _shared_out(folder, _several_classes(folder), SHARES)
    listed = {name: list_classes(path) for name, path in folders.items() if name != "train"}
    train = _several_classes(folders["train"])
    for name, classes in listed.items():
        _check_same_classes(train, classes, folders[name])
    splits = {name: with_folder(folders[name], classes) for name, classes in listed.items()}
    if "validation" in splits:
        return {"train": with_folder(folders["train"], train), **splits}
    shares = {name: SHARES[name] for name in ("train", "validation")}
    return {**_shared_out(folders["train"], train, shares), **splits}


def _several_classes(folder: Path) -> Classes:
    classes = list_classes(folder)
    if len(classes) == 1:
        raise ValueError(
            f"{folder} has one class only ({next(iter(classes))}): at least 2 are needed; name the "
            "folder that holds train/ and val/, or a folder for each class"
        )
    return classes


def _shared_out(folder: Path, classes: Classes, shares: Mapping[str, float]) -> dict[str, Classes]:
    parts = {name: shared_out(paths, shares) for name, paths in classes.items()}
    splits = {part: {name: parts[name][part] for name in classes} for part in shares}
    if empty := [part for part, members in splits.items() if not any(members.values())]:
        raise ValueError(
            f"too few images in {folder} to split: none is left for {' and '.join(empty)}; a class "
            f"with at least {len(shares)} images is needed, the largest has "
            f"{max(map(len, classes.values()))}"
        )
    return {part: with_folder(folder, members) for part, members in splits.items()}


def _check_same_classes(train: Iterable[str], classes: Iterable[str], folder: Path) -> None:
    missing = sorted(set(train) - set(classes))
    unknown = sorted(set(classes) - set(train))
    if missing or unknown:
        problems = [f"without {shortened(missing)}"] * bool(missing)
        problems += [f"with {shortened(unknown)}, which train/ has not"] * bool(unknown)
        raise ValueError(
            f"{folder} has other classes than train/: {', and '.join(problems)}; give both the "
            "same folders"
        )
