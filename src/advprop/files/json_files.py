"""JSON files of a run, and the lock on its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advprop.files.atomic import UNFINISHED as UNFINISHED
from advprop.files.atomic import sweep as sweep
from advprop.files.atomic import write_atomically as write_atomically
from advprop.files.parsing import Part, parse_json, read_part


class InUseError(ValueError):
    """Another process trains in the folder."""


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
