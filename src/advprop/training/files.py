"""Writing files so that a kill at any moment leaves the old one or the new one, whole."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from advprop.parsing import Part, parse_json, read_part
from advprop.writing import REMEDY, writing


class InUseError(ValueError):
    """Another process trains in the folder."""


UNFINISHED = ".unfinished"
"""How the names of files end that `write_atomically` is still filling."""


def write_atomically(
    path: Path, write: Callable[[IO[bytes]], object], *, remedy: str = REMEDY
) -> None:
    """Let `write` fill a file beside `path`, then put it in its place.

    A symlink stays, and what it names is written; a device or a pipe is written straight into.
    Raises WriteError where the folder cannot be written or the disk is full; `path` is as before.
    """
    with writing(path, remedy=remedy):
        _write_atomically(path, write)


def _write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            write(file)
        return
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}{UNFINISHED}")
    try:
        with temporary.open("xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Delete what killed processes left unfinished in `folder`; for the one that holds it alone."""
    for left in folder.glob(f".*{UNFINISHED}"):
        left.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(
    path: Path,
    form: type[Part] | None = None,
    *,
    remedy: str = "correct it, or put back a whole one",
) -> dict[str, Any]:
    """The JSON object in `path`, of the given form.

    Raises OSError where it cannot be read; for all else ValueError, with its path and `remedy`.
    """
    try:
        value = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: damaged, not JSON ({error}); {remedy}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: damaged, an object is expected; {remedy}")
    try:
        return value if form is None else read_part(form, value).plain()
    except ValueError as error:
        raise ValueError(f"{path}: damaged, {error}; {remedy}") from None


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Keep other processes from writing into `folder` meanwhile. InUseError: one does already.

    The lock is the kernel's and goes with its process, however that ends; it is not inherited, so
    neither do loader workers hold it. Where there is none (Windows, some network disks), nothing
    is locked.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise InUseError(
                f"{folder}: another process is training here; wait for it, or take another --out"
            ) from None
        except OSError:
            pass  # a disk without locks
        yield
