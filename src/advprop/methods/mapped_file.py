"""A sparse file as bytes in memory, which several processes of one machine share."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def map_file(path: Path, *, num_bytes: int, identity: Mapping[str, Any], header: int) -> np.memmap:
    """The bytes of the file at `path`, zeros where it is new; `identity` stands in its header.

    Several processes may do this at once: all of them write the same. Raises ValueError for a file
    of another identity, OSError where the disk has no room for all of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps(dict(identity), sort_keys=True).encode().ljust(header, b" ")
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        found = os.fstat(file.fileno())
        # a process that was killed, or another one just now, may have got half as far
        begun = file.read(header).strip(b"\0") if found.st_size else b""
        if begun not in (b"", wanted) or found.st_size not in (0, num_bytes):
            raise ValueError(_another(path, begun, identity))
        _check_room(path, num_bytes - 512 * getattr(found, "st_blocks", 0))
        file.truncate(num_bytes)
        file.seek(0)
        file.write(wanted)
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=(num_bytes,))


def _check_room(path: Path, needed: int) -> None:
    """A write into a mapped file for which there is no room would kill the process."""
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            f"{path} may grow by {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB free: "
            "make room, use a folder on another disk, or train on fewer or smaller images"
        )


def _another(path: Path, begun: bytes, identity: Mapping[str, Any]) -> str:
    try:
        told = json.loads(begun)
    except ValueError:
        told = "something else"
    return (
        f"{path}: a file of {told}, not of {dict(identity)}: use another folder, or delete it if "
        "no training goes on from it"
    )
