"""Find the tar shards that a pattern names, and the split that each belongs to."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from pathlib import Path

from advprop.data.listing.classes import shortened
from advprop.data.listing.split_names import split_name

CLASSES_NAME = "classes.json"
_MAX_RANGE = 10**6


def find_shards(train: str, validation: str | None, test: str | None) -> dict[str, list[Path]]:
    """Return the shards of each split, sorted by path: "train" and the other splits found.

    If `train` is a folder whose shards are named after splits, it provides the other splits too.
    Raises OSError if shards are missing, and ValueError for an invalid pattern, a URL, a folder in
    which only some shards are named after a split, or a shard in two splits.
    """
    patterns = {"train": train, "validation": validation, "test": test}
    named = _by_split(Path(train)) if Path(train).is_dir() else {}
    splits: dict[str, list[Path]] = {}
    for split, pattern in patterns.items():
        if pattern is not None:
            splits[split] = _shards_of(pattern, split)
        elif split in named:
            splits[split] = named[split]
    paths = [path for shards in splits.values() for path in shards]
    counts = Counter(path.resolve() for path in paths)
    if twice := [str(path) for path, count in counts.items() if count > 1]:
        raise ValueError(
            f"{len(twice)} shards are in two splits ({shortened(twice, 3)}): name each in one only"
        )
    return splits


def expand_braces(pattern: str) -> list[str]:
    """Return the texts that `pattern` stands for, where braces hold {0000..0007} or {a,b}.

    Raises ValueError if braces hold neither a range nor a list.
    """
    braces = re.search(r"\{([^{}]*)\}", pattern)
    if braces is None:
        return [pattern]
    if bounds := re.fullmatch(r"([0-9]+)\.\.([0-9]+)", braces[1]):
        first, last = int(bounds[1]), int(bounds[2])
        if not 0 <= last - first < _MAX_RANGE:
            raise ValueError(f"{braces[0]} in {pattern}: must count up, below {_MAX_RANGE:,} steps")
        words = [f"{number:0{len(bounds[1])}}" for number in range(first, last + 1)]
    elif "," in braces[1]:
        words = braces[1].split(",")
    else:
        raise ValueError(f"{braces[0]} in {pattern}: braces hold a range {{0000..0007}} or {{a,b}}")
    head, tail = pattern[: braces.start()], pattern[braces.end() :]
    return [text for word in words for text in expand_braces(head + word + tail)]


def _shards_of(pattern: str, split: str) -> list[Path]:
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://|pipe:|file:", pattern):
        raise ValueError(
            f"{pattern} is no file: shards are read at any place and in any order, so copy them to "
            "a local disk, or mount the store as a folder, and name the files"
        )
    if os.path.isdir(pattern):
        return _of_split(Path(pattern), split)
    texts = [pattern] if os.path.exists(pattern) else expand_braces(pattern)
    found: set[Path] = set()
    missing: list[str] = []
    for text in texts:
        paths = [text] if os.path.isfile(text) else list(filter(os.path.isfile, glob.glob(text)))
        found |= {Path(path) for path in paths}
        missing += [] if paths else [text]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(texts)} shards of data.{split} are not there "
            f"({shortened(missing, 3)}): check the pattern"
        )
    return sorted(found)


def _of_split(folder: Path, split: str) -> list[Path]:
    groups = _by_split(folder)
    shards = groups.get(split) or (groups.get("") if len(groups) == 1 else None)
    if not shards:
        raise FileNotFoundError(
            f"{folder} has no shards (*.tar) for data.{split}: name them by a pattern, as in "
            f"{folder}/{split}-{{000000..000007}}.tar"
        )
    return shards


def _by_split(folder: Path) -> dict[str, list[Path]]:
    """Group the shards in `folder` by the split in their names, or under "" if none has one."""
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.tar")):
        if path.is_file() and not path.name.startswith("."):  # macOS adds hidden files
            word = split_name(path.name)
            groups.setdefault(word.split if word else "", []).append(path)
    if "" in groups and len(groups) > 1:
        odd = shortened([path.name for path in groups[""]], 3)
        raise ValueError(
            f"{folder} has shards named after a split and others ({odd}): name those of each split "
            "by a pattern"
        )
    return groups
