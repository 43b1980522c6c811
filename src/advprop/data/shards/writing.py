"""Write tar shards of a folder of images."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from advprop.data.listing.classes import Classes, check_readable
from advprop.data.listing.sharing import list_splits
from advprop.data.reading import header_problem
from advprop.data.shards.finding import CLASSES_NAME
from advprop.files.atomic import appearing_folder, check_free
from advprop.files.json_files import write_json
from advprop.randomness import derive_seed


@dataclass(frozen=True)
class Written:
    """The numbers of images and shards of one split."""

    num_images: int
    num_shards: int


def write_shards(
    root: str | Path, out: str | Path, *, images_per_shard: int = 1000
) -> dict[str, Written]:
    """Write a folder of images as tar shards; return the numbers written for each split.

    `root` has a layout of `folders.load_folder`. `out` then holds `train-000000.tar` and so on,
    each split in its own shards, and `classes.json` with the names of the classes. Images are
    copied byte for byte, in the order of a hash of their names, so that each shard has mixed
    classes; the same folder gives the same bytes. `out` must be empty or missing; it appears
    when it is complete.

    Raises OSError if files cannot be read or written, and ValueError if `images_per_shard` is below
    1, `out` is not empty, or as `load_folder` does.
    """
    if images_per_shard < 1:
        raise ValueError(f"images_per_shard={images_per_shard}: must be at least 1")
    root, out = Path(root), Path(out)
    check_free(out)
    splits, _ = list_splits(root)
    paths = [path for classes in splits.values() for own in classes.values() for path in own]
    check_readable(len(paths), map(header_problem, paths))
    names = _member_names(root, paths)
    with appearing_folder(out) as unfinished:
        written = {
            split: _write_split(unfinished / split, classes, names, images_per_shard)
            for split, classes in splits.items()
        }
        write_json(unfinished / CLASSES_NAME, list(splits["train"]))
    return written


def _write_split(
    start_of_name: Path, classes: Classes, names: Mapping[str, str], images_per_shard: int
) -> Written:
    labels = {path: label for label, paths in enumerate(classes.values()) for path in paths}
    order = sorted(labels, key=lambda path: derive_seed("shards", names[path]))
    starts = range(0, len(order), images_per_shard)
    for number, start in enumerate(starts):
        target = f"{start_of_name}-{number:06d}.tar"
        # Python's default format would add a header for each name that is not ASCII
        with tarfile.open(target, "w", format=tarfile.GNU_FORMAT, encoding="utf-8") as tar:
            for path in order[start : start + images_per_shard]:
                key = names[path].rpartition(".")[0]
                _add(tar, names[path], Path(path).read_bytes())
                _add(tar, f"{key}.cls", str(labels[path]).encode())
    return Written(len(order), len(starts))


def _member_names(root: Path, paths: Iterable[str]) -> dict[str, str]:
    """Return each path's name in the shards: relative to `root`, with one dot, and a unique key."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted(paths):
        key, ending = os.path.splitext(os.path.relpath(path, root))
        folder, slash, stem = key.rpartition("/")
        key = folder + slash + stem.replace(".", "_")
        while key in taken:
            key += "_"
        taken.add(key)
        names[path] = key + ending.lower()
    return names


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # its time, owner and permissions are always the same
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
