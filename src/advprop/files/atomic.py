"""Write files and folders atomically, with errors that have a remedy."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import IO

REMEDY = "make room or give access, then use the same command again"
# errors of a full disk, of missing permission, and of a read-only or broken disk
_OF_WRITING = {
    getattr(errno, name, None)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EACCES", "EPERM", "EROFS", "EIO")
}
UNFINISHED = ".unfinished"
"""The ending of the names of files and folders that are not complete yet."""


class WriteError(OSError):
    """A file could not be written; the message has its path, the reason and a remedy."""


@contextmanager
def writing(path: Path, *, needed: int | None = None, remedy: str = REMEDY) -> Iterator[None]:
    """Raise WriteError in place of an error inside that shows that `path` cannot be written.

    Other errors pass unchanged. The message has `remedy`, and the `needed` bytes if they are known.
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


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], *, remedy: str = REMEDY
) -> None:
    """Write `path` by `write`, which fills a temporary file beside it that is then renamed.

    If `path` is a symlink, its target is written; a device or a pipe is written directly. Remains
    of killed earlier attempts are deleted. Raises WriteError, and leaves `path` unchanged, if the
    folder cannot be written or the disk is full.
    """
    with writing(path, remedy=remedy):
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                write(file)
            return
        target = Path(os.path.realpath(path))
        sweep(target.parent, of=target.name)
        temporary, opened = _opened(target)
        try:
            with opened as file:
                write(file)
                file.flush()
                os.fsync(file.fileno())
                if os.name != "nt":  # Windows cannot move open files
                    temporary.replace(target)
            if os.name == "nt":
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)


def check_no_file(folder: Path) -> None:
    """Raise ValueError if `folder` or a path above it is a file."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise ValueError(f"{place}: a file, not a folder; give another --out")


def check_free(folder: Path) -> None:
    """Raise ValueError unless `folder` can be made, or is empty and no mount point."""
    check_no_file(folder)
    if folder.is_mount():  # `appearing_folder` could not replace it at the end
        raise ValueError(f"{folder}: a mount point, which cannot be replaced; name a folder in it")
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder}: not empty, and nothing is overwritten; name another folder")


@contextmanager
def appearing_folder(folder: Path, *, needed: int | None = None) -> Iterator[Path]:
    """Yield a temporary folder, which becomes `folder` at the end, or is deleted on an exception.

    `needed` is its expected size in bytes, if known, for the error message. Remains of killed
    earlier attempts are deleted. Raises WriteError if the folder cannot be written.
    """
    with writing(folder, needed=needed):
        folder = folder.resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, of=folder.name)
        temporary = _unfinished(folder)
        temporary.mkdir()
        try:
            with held(temporary):
                yield temporary
                temporary.replace(folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path, *, of: str = "") -> None:
    """Delete what killed processes left unfinished in `folder`, or only what was to be called `of`.

    What a living process is writing is locked, and stays.
    """
    for left in folder.glob(f".*{UNFINISHED}"):
        if left.name.startswith(f".{of}.") or not of:
            _delete_unless_held(left)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Hold a lock on an existing file or folder; yields False if another process holds it.

    The kernel releases the lock when its process ends, even by a kill. On systems without locks
    (Windows, some network disks), it locks nothing and yields True.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except PermissionError:  # Windows cannot open folders
        yield True
        return
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def safe_name(*words: str) -> str:
    """Return `words` joined to the name of a file or folder, without characters of paths."""
    kept = (re.sub(r"[^A-Za-z0-9._=+-]+", "_", word).strip("._")[:80] for word in words)
    return "-".join(word or "unnamed" for word in kept)


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{UNFINISHED}")


def _opened(target: Path) -> tuple[Path, BufferedWriter]:
    """Return a new, locked file beside `target`; tries again if another process deletes it."""
    while True:
        temporary = _unfinished(target)
        file = temporary.open("xb")
        if _lock(file.fileno()) and temporary.exists():
            return temporary, file
        file.close()


def _lock(handle: int) -> bool:
    """Lock an open file; returns whether that succeeded, and True if the system has no locks."""
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a disk without locks
    return True


def _delete_unless_held(path: Path) -> None:
    try:
        with held(path) as is_free:
            if not is_free:
                return
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    except OSError:  # it was deleted meanwhile, or belongs to another user
        pass
