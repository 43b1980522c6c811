"""Read and write the JSON files of a run, and lock its folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from advprop.files.atomic import write_atomically
from advprop.files.parsing import Part, parse_json, read_part


class InUseError(ValueError):
    """Raised if another process trains in the folder."""


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; raises ValueError for NaN or infinity in it."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def read_json(
    path: Path,
    form: type[Part] | None = None,
    *,
    remedy: str = "correct it, or put back a whole one",
) -> dict[str, Any]:
    """Return the JSON object in `path`, checked against `form`.

    Raises OSError if it cannot be read, and ValueError, with `path` and `remedy`, if it is invalid.
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
    """Hold the lock of the training in `folder`; raises InUseError if another process holds it.

    The kernel releases the lock when its process ends, even by a kill. Loader workers do not
    inherit it. On systems without locks (Windows, some network disks), nothing is locked.
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
