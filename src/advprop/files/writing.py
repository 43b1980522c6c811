"""Errors for files that cannot be written, with a remedy."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

REMEDY = "make room or give access, then use the same command again"
# a full disk, a folder of another user, a read-only disk, and a broken one
_OF_WRITING = {
    getattr(errno, name, None)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "EIO")
}


class WriteError(OSError):
    """A file could not be written; the message has its path, the reason and a remedy."""


@contextmanager
def writing(path: Path, *, needed: int | None = None, remedy: str = REMEDY) -> Iterator[None]:
    """Convert libraries' errors for writing `path`, of about `needed` bytes, to WriteError.

    Other errors pass through unchanged.
    """
    try:
        yield
    except Exception as error:
        reason = None if isinstance(error, WriteError) else _reason(error)
        if reason is None:
            raise
        room = [] if needed is None else [f"{size_text(needed)} needed"]
        room += [] if (free := _free(path)) is None else [f"{size_text(free)} free"]
        told = "; ".join([reason, *room])
        raise WriteError(f"{path}: could not be written ({told}): {remedy}") from error


def size_text(count: int) -> str:
    """Return `count` bytes as text, in the largest unit in which the number is at least 1."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _reason(error: Exception) -> str | None:
    """Return why a file could not be written, or None if the error has another cause."""
    if isinstance(error, OSError) and error.errno in _OF_WRITING:
        return error.strerror or str(error)
    text = str(error)
    if type(error).__name__ == "SafetensorError" and "os error" in text:
        return text.rpartition("I/O error: ")[2]
    return None


def _free(path: Path) -> int | None:
    for folder in path.absolute().parents:
        try:
            return shutil.disk_usage(folder).free
        except OSError:
            continue
    return None
