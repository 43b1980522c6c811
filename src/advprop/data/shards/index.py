"""The index of tar shards: headers are scanned once, and the result is stored beside them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from advprop.data.listing.classes import shortened
from advprop.data.shards.scanning import Shard, scan_shard, stamp_of
from advprop.files.atomic import write_atomically

INDEX_NAME = ".advprop-shards.npz"
"""The file in the shards' folder that stores the result of the scan."""

_FORMAT = 1
_COLUMNS = ("keys", "labels", "offsets", "sizes")


def index_shards(paths: Sequence[Path]) -> list[Shard]:
    """Return the contents of each of `paths`; only new or changed shards are scanned.

    Raises OSError if a file cannot be read, and one ValueError that lists all faults of the shards.
    """
    known: dict[Path, Shard] = {}
    problems: list[str] = []
    for folder in sorted({path.parent for path in paths}):
        index = _load(folder / INDEX_NAME)
        own = [path for path in paths if path.parent == folder]
        stale = [path for path in own if not _is_current(path, index)]
        for path in stale:
            index[path.name], faults = scan_shard(path)
            problems += faults
            if faults:
                del index[path.name]  # scanned again next time
        if stale:
            _save(folder / INDEX_NAME, index)
        known |= {folder / name: shard for name, shard in index.items()}
    if problems:
        raise ValueError("the shards have faults:\n  " + shortened(problems, separator="\n  "))
    return [known[path] for path in paths]


def _is_current(path: Path, index: Mapping[str, Shard]) -> bool:
    return path.name in index and index[path.name].stamp == stamp_of(path.stat())


def _load(path: Path) -> dict[str, Shard]:
    """Read an index as shards by name; empty if it is missing, damaged or of another format."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            if arrays["format"] != _FORMAT:
                return {}
            ends = np.cumsum(arrays["counts"])[:-1]
            tables = zip(*(np.split(arrays[name], ends) for name in _COLUMNS), strict=True)
            names, files = arrays["names"].tolist(), arrays["files"].tolist()
        return {
            os.fsdecode(name): Shard((size, changed), cut_at, *table)
            for name, (size, changed, cut_at), table in zip(names, files, tables, strict=True)
        }
    except Exception:  # numpy raises all kinds of errors on damaged files; the index can be rebuilt
        return {}


def _save(path: Path, index: Mapping[str, Shard]) -> None:
    """Write the index atomically; does nothing if the folder cannot be written."""
    index = {name: shard for name, shard in index.items() if (path.parent / name).exists()}
    if not index:
        return
    shards = index.values()
    arrays: dict[str, Any] = {
        "format": np.array(_FORMAT),
        "names": np.array([os.fsencode(name) for name in index]),
        "files": np.array([(*shard.stamp, shard.cut_at) for shard in shards], dtype=np.int64),
        "counts": np.array([len(shard.keys) for shard in shards]),
    }
    for name in _COLUMNS:
        arrays[name] = np.concatenate([getattr(shard, name) for shard in shards])
    with suppress(OSError):  # a full disk, or a folder that cannot be written
        write_atomically(path, lambda file: np.savez(file, **arrays))
