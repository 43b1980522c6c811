"""Map a file into memory, which several processes of one machine can share."""

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
    """Return the bytes of the file at `path`, mapped for reading and writing.

    A new file gets room for `num_bytes`, reserved on the disk. Its header of `header` bytes begins
    with `identity` and ends with `ID_BYTES` random bytes that no other file has; the rest is zeros.
    A file of `earlier` bytes, made by an earlier version, is extended. Several processes may call
    this at once. Raises ValueError if the file has another identity, OSError if it was truncated or
    the disk lacks room.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted = json.dumps(dict(identity), sort_keys=True).encode().ljust(header - ID_BYTES, b" ")
    with os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b") as file:
        found = os.fstat(file.fileno())
        # zeros, if a killed process, or another right now, has reserved room but not written yet
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
    """Return the error for a file whose contents are not those that were written."""
    return OSError(
        f"{path or 'what images carry'}: damaged, {why}: training cannot go on from it; put back a "
        "whole copy from the time of the newest checkpoint, or train again into another folder"
    )


def _reserve(path: Path, file: IO[bytes], num_bytes: int, *, new: bool) -> None:
    """Extend the file to `num_bytes`, and reserve its room; raises OSError if the disk lacks it.

    A write into a mapped file for which there is no room would kill the process.
    """
    needed = num_bytes - 512 * getattr(os.fstat(file.fileno()), "st_blocks", 0)
    free = shutil.disk_usage(path.parent).free
    try:
        if needed > free:
            raise OSError(errno.ENOSPC, "")
        file.truncate(num_bytes)
        os.posix_fallocate(file.fileno(), 0, num_bytes)
    except AttributeError:
        pass  # the system cannot reserve room, so the check above has to suffice
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return  # the file system cannot reserve room
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
