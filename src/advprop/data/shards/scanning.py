"""Scan tar shards for their samples and faults, once: the index beside them keeps the result."""

from __future__ import annotations

import json
import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeAlias

import numpy as np

from advprop.data.listing.classes import shortened
from advprop.data.listing.walking import ENDINGS_IN_WORDS, image_endings
from advprop.files.atomic import write_atomically

_BLOCK = 512  # bytes; a tar file consists of such blocks
_MAX_LABEL_BYTES = 1 << 20

Stamp: TypeAlias = tuple[int, int]
"""A file's size in bytes and modification time in nanoseconds; it changes with the contents."""

INDEX_NAME = ".advprop-shards.npz"
"""The file in the shards' folder that stores the result of the scan."""

_FORMAT = 1
_COLUMNS = ("keys", "labels", "offsets", "sizes")


@dataclass(frozen=True, eq=False)
class Shard:
    """The samples of one tar file, in its order; all arrays have shape [num_samples].

    `keys` are bytes (UTF-8); `labels`, and the images' `offsets` and `sizes` in bytes, are int64.
    `cut_at` is the byte at which the file is truncated or damaged, or -1 if it is complete.
    """

    stamp: Stamp
    cut_at: int
    keys: np.ndarray[Any, Any]
    labels: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    sizes: np.ndarray[Any, Any]


class _Member(NamedTuple):
    key: str
    ending: str
    offset: int
    size: int


def stamp_of(status: os.stat_result) -> Stamp:
    """Return the stamp of a file with this `status`."""
    return status.st_size, status.st_mtime_ns


def scan_shard(path: Path) -> tuple[Shard, list[str]]:
    """Return the samples in `path`, and a line with a count for each kind of fault.

    A sample is consecutive files with one key, which is the path up to the first dot of the file
    name; files with neither image nor class number are ignored. A truncated shard gives its
    complete samples. Raises OSError if `path` is unreadable.
    """
    faults: dict[str, list[str]] = defaultdict(list)
    rows: dict[str, tuple[int, int, int]] = {}
    with path.open("rb") as file:
        stamp = stamp_of(os.fstat(file.fileno()))
        members, cut_at = _members(file, stamp[0])
        samples = [list(group) for _, group in groupby(members, key=lambda member: member.key)]
        for sample in samples:
            key = sample[0].key
            row = _row(sample, _label(sample, file), is_known=key in rows)
            if isinstance(row, tuple):
                rows[key] = row
            elif row is not None and not (cut_at >= 0 and sample is samples[-1]):
                faults[row].append(key)
    lines = [
        f"{path}: {len(keys)} {fault}, as {shortened(keys, 2)}" for fault, keys in faults.items()
    ]
    if not rows and not lines:
        lines.append(
            f"{path}: no images in it; it is empty, cut off, compressed (unpack it first) or no "
            "tar file"
        )
    keys = np.array([key.encode(errors="surrogateescape") for key in rows], dtype=np.bytes_)
    table = np.array(list(rows.values()), dtype=np.int64).reshape(-1, 3)
    return Shard(stamp, cut_at, keys, *table.T.copy()), lines


def _members(file: BinaryIO, size: int) -> tuple[list[_Member], int]:
    """Return a tar file's complete members, and the byte at which it is damaged, -1 if nowhere."""
    found: list[_Member] = []
    end = 0
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8") as tar:
            while (member := tar.next()) is not None:
                if not 0 <= member.size <= size - member.offset_data:
                    break
                end = tar.offset
                tar.members = []  # type: ignore[attr-defined]  # else it would keep all members
                folder, slash, name = member.name.removeprefix("./").rpartition("/")
                stem, dot, ending = name.partition(".")
                if member.isreg() and not member.issparse() and stem and dot:
                    key = folder + slash + stem
                    ending = "." + ending.lower()
                    found.append(_Member(key, ending, member.offset_data, member.size))
    except OSError:
        raise
    except Exception:  # tarfile raises all kinds of errors on damaged headers
        pass
    # tarfile stops silently at a damaged header; only a block of zeros marks the end
    file.seek(end)
    last = file.read(_BLOCK)
    is_end = len(last) == _BLOCK and not any(last)
    return found, -1 if is_end else min(end, size)


def _row(
    sample: Sequence[_Member], label: object, *, is_known: bool
) -> tuple[int, int, int] | str | None:
    """Return a sample's label, image offset and image size; its fault; or None if it is none."""
    images = [member for member in sample if member.ending in image_endings()]
    number = _class_number(label)
    if not images:
        # files with neither image nor class number, as a read-me, are no sample
        return None if number is None else f"labels without an image ({ENDINGS_IN_WORDS})"
    if is_known or len({member.ending for member in sample}) < len(sample):
        return "keys that come more than once"
    if len(images) > 1:
        return "samples with several images"
    if label is None:
        return 'images without a label (.cls, .json with "label", or .txt)'
    if number is None:
        return "labels that are no class number (0, 1, ...)"
    return number, images[0].offset, images[0].size


def _label(sample: Iterable[_Member], file: BinaryIO) -> object:
    """Return a sample's label or None; .cls takes precedence over .json, and that over .txt."""
    members = {member.ending: member for member in sample}
    for ending in (".cls", ".json", ".txt"):
        if ending in members:
            member = members[ending]
            length = min(member.size, _MAX_LABEL_BYTES)
            text = os.pread(file.fileno(), length, member.offset).decode(errors="replace")
            if ending != ".json":
                return text.strip()
            try:
                value = json.loads(text)
            except (ValueError, RecursionError):
                value = None
            if isinstance(value, Mapping) and "label" in value:
                return value["label"]
    return None


def _class_number(label: object) -> int | None:
    if isinstance(label, str) and re.fullmatch(r"[0-9]{1,9}", label):
        return int(label)
    return label if type(label) is int and 0 <= label < 10**9 else None


def index_shards(paths: Sequence[Path]) -> list[Shard]:
    """Return the contents of each of `paths`; only new or changed shards are scanned.

    Raises OSError if a file cannot be read, and one ValueError that lists all faults of the shards.
    """
    known: dict[Path, Shard] = {}
    problems: list[str] = []
    for folder in sorted({path.parent for path in paths}):
        index = _load(folder / INDEX_NAME)
        own = [path for path in paths if path.parent == folder]
        stale = [
            path
            for path in own
            if path.name not in index or index[path.name].stamp != stamp_of(path.stat())
        ]
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
