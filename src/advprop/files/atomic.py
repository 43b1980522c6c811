"""Files and folders that appear whole or not at all, and the sweeping of what kills leave."""

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
"""How the names of files and folders end that are still being filled."""


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], *, remedy: str = REMEDY
) -> None:
    """Let `write` fill a file beside `path`, then put it in its place.

    A symlink stays, and what it names is written; a device or a pipe is written straight into.
    What killed processes left of earlier attempts is deleted. Raises WriteError where the folder
    cannot be written or the disk is full; `path` is as before.
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
            if os.name != "nt":  # there no open file is moved
                temporary.replace(target)
        if os.name == "nt":
            temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def appearing_folder(folder: Path, *, needed: int = 0) -> Iterator[Path]:
    """A folder beside `folder` that takes its place at the end, or vanishes on an exception.

    It will hold about `needed` bytes. What killed processes left of earlier attempts is deleted.
    Raises WriteError where it cannot be written.
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
    """Delete what killed processes left unfinished in `folder`, or of the name `of` there alone.

    What a living process is filling is locked, and stays.
    """
    for left in folder.glob(f".*{UNFINISHED}"):
        if left.name.startswith(f".{of}.") or not of:
            _delete_unless_held(left)


@contextmanager
def held(path: Path) -> Iterator[bool]:
    """Lock a file or folder that is there, for as long as this lasts; False: another one has it.

    The kernel drops the lock with its process, however that ends. Where there are no locks
    (Windows, some network disks), nothing is locked, and True is given.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except PermissionError:  # Windows opens no folders
        yield True
        return
    try:
        yield _lock(handle)
    finally:
        os.close(handle)


def safe_name(*words: str) -> str:
    """`words` as one name of a file or folder, whatever they hold; never of another place."""
    kept = (re.sub(r"[^A-Za-z0-9._=+-]+", "_", word).strip("._")[:80] for word in words)
    return "-".join(word or "unnamed" for word in kept)


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}{UNFINISHED}")


def _opened(target: Path) -> tuple[Path, BufferedWriter]:
    """A new file beside `target`, locked before another process could sweep it."""
    while True:
        temporary = _unfinished(target)
        file = temporary.open("xb")
        if _lock(file.fileno()) and temporary.exists():
            return temporary, file
        file.close()


def _lock(handle: int) -> bool:
    """Whether the lock of an open file could be had, or there are no locks."""
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
    except OSError:  # gone meanwhile, or not ours
        pass
