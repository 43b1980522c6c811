"""Checks the file of `--json FILE` before the work whose result it will hold."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def check_json_target(path: Path | None, *keys: str) -> None:
    """Raise ValueError if `path` is not writable or holds something other than such a result.

    An existing file may be empty or hold such a result: an object with `keys`, or a list of such
    objects. Devices, pipes and None (no target) are accepted.
    """
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path}: a folder; give --json the name of a file")
    if path.exists() and not path.is_file():
        return
    if path.is_file() and path.stat().st_size and not _holds(path, keys):
        raise ValueError(f"{path}: there, and not such a result; give another --json")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; make it, or give another --json")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written to ({error.strerror}); give another --json"
        ) from None


def _holds(path: Path, keys: tuple[str, ...]) -> bool:
    from advprop.files.parsing import parse_json

    try:
        value = parse_json(path.read_bytes())
    except ValueError:
        return False
    if isinstance(value, list):
        value = value[0] if value else None
    return isinstance(value, dict) and all(key in value for key in keys)
