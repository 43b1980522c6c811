"""Write files and folders atomically, and delete the remains of killed processes."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedWriter
from pathlib import Path
from typing import IO

from advprop.files.writing import REMEDY, writing

UNFINISHED = ".unfinished"
"""The ending of the names of files and folders that are not complete yet."""


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], *, remedy: str = REMEDY
) -> None:
    """Let `write` fill a temporary file beside `path`, then move it to `path`.

    If `path` is a symlink, its target is written; a device or a pipe is written directly. Remains
    of killed earlier attempts are deleted. Raises WriteError, and leaves `path` unchanged, if the
    folder cannot be written or the disk is full.
    """
    with writing(path, remedy=remedy):
        _write_atomically(path, write)


def _write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
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


@contextmanager
def appearing_folder(folder: Path, *, needed: int = 0) -> Iterator[Path]:
    """Create a temporary folder that is moved to `folder` at the end, or deleted on an exception.

    `needed` is its expected size in bytes, for the error message. Remains of killed earlier
    attempts are deleted. Raises WriteError if the folder cannot be written.
    """
    with writing(folder, needed=needed):
        yield from _appearing(folder.resolve())


def _appearing(folder: Path) -> Iterator[Path]:
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
    """Delete the unfinished files of killed processes in `folder`, or only those for the name `of`.

    Files that a living process is filling are locked, and stay.
    """
    for left in folder.glob(f".*{UNFINISHED}"):
        if left.name.startswith(f".{of}.") or not of:
            _delete_unless_held(left)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Lock an existing file or folder inside; yields False if another process has locked it.

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
    """Join `words` to the name of a file or folder, without characters that could form a path."""
    kept = (re.sub(r"[^A-Za-z0-9._=+-]+", "_", word).strip("._")[:80] for word in words)
    return "-".join(word or "unnamed" for word in kept)


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{UNFINISHED}")


def _opened(target: Path) -> tuple[Path, BufferedWriter]:
    """Create and lock a new file beside `target`; tries again if another process deletes it."""
    while True:
        temporary = _unfinished(target)
        file = temporary.open("xb")
        if _lock(file.fileno()) and temporary.exists():
            return temporary, file
        file.close()


def _lock(handle: int) -> bool:
    """Lock an open file; returns True if that succeeds or the system has no locks."""
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
