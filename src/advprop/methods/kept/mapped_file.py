"""A file as bytes in memory, which several processes of one machine share."""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from advprop.files.atomic import size_text

ID_BYTES = 16


def map_file(
    path: Path, *, num_bytes: int, identity: Mapping[str, Any], header: int, earlier: int
) -> np.memmap:
    """The bytes of the file at `path`, zeros where it is new, with all of its room reserved.

    `identity` stands in its header, and at the header's end `ID_BYTES` that no other file has. A
    file of `earlier` bytes, as an earlier version made, is made longer. Several processes may do
    this at once. Raises ValueError for a file of another identity, OSError for one that was cut
    off, and where the disk has no room for all of it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps(dict(identity), sort_keys=True).encode().ljust(header - ID_BYTES, b" ")
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        found = os.fstat(file.fileno())
        # a process that was killed, or another one just now, may have got half as far
        begun = file.read(header).strip(b"\0") if found.st_size else b""
        if begun and begun[: len(wanted)] != wanted:
            raise ValueError(_another(path, begun[: len(wanted)], identity))
        if found.st_size not in (0, earlier, num_bytes):
            raise damaged(path, f"it has {found.st_size:,} bytes instead of {num_bytes:,}")
        _reserve(path, file, num_bytes, new=not begun)
        if not begun:
            file.seek(0)
            file.write(wanted + secrets.token_bytes(ID_BYTES))
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=(num_bytes,))


def damaged(path: Path | None, why: str) -> OSError:
    """The error for a file that is not what was written."""
    return OSError(
        f"{path or 'what images carry'}: damaged, {why}: training cannot go on from it; put back a "
        "whole copy from the time of the newest checkpoint, or train again into another folder"
    )


def _reserve(path: Path, file: IO[bytes], num_bytes: int, *, new: bool) -> None:
    """A write into a mapped file for which there is no room would kill the process."""
    needed = num_bytes - 512 * getattr(os.fstat(file.fileno()), "st_blocks", 0)
    free = shutil.disk_usage(path.parent).free
    try:
        if needed > free:
            raise OSError(errno.ENOSPC, "")
        file.truncate(num_bytes)
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    except AttributeError:
        pass  # no such system: what was free just now has to do
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return  # a disk that cannot reserve
        if new:
            path.unlink()
        raise OSError(
            f"{path} grows by {size_text(needed)}, the disk has {size_text(free)} free: make "
            "room, use a folder on another disk, or train on fewer or smaller images"
        ) from None


def _another(path: Path, begun: bytes, identity: Mapping[str, Any]) -> str:
    try:
        told = json.loads(begun)
    except ValueError:
        told = "something else"
    return (
        f"{path}: a file of {told}, not of {dict(identity)}: use another folder, or delete it if "
        "no training goes on from it"
    )
