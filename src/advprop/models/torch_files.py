"""Read torch files with their checksums verified, and without running code from them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from advprop.files.parsing import first_line


def read_torch_file(path: Path) -> Any:
    """Return the object that `torch.save` wrote to `path`, with tensors on the CPU.

    Raises ValueError if it is no torch file or damaged, by its checksums too, which torch does not
    check; UnpicklingError if it holds more than tensors and plain data; OSError if it cannot be
    opened.
    """
    with path.open("rb"):
        pass  # raises OSError for a missing or forbidden file, so that it is not called damaged
    try:
        if damaged := _damaged_part(path):
            raise ValueError(f"the checksum of {damaged} does not match")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, pickle.UnpicklingError):
        raise
    except Exception as error:  # torch and Python raise all kinds of errors on damaged files
        reason = first_line(error)
        raise ValueError(f"{path}: damaged, or no torch file ({reason})") from None


def _damaged_part(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        return None  # truncated, of an old format, or another file: torch raises the error
    with zipfile.ZipFile(path) as parts:
        return parts.testzip()
