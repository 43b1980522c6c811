"""Torch files: read whole or not at all, and without running code from them."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from advprop.files.parsing import first_line


def read_torch_file(path: Path) -> Any:
    """What `torch.save` wrote to `path`, its tensors on the CPU.

    ValueError: damaged, which the checksums of its parts tell (torch does not look at them), or no
    torch file. UnpicklingError: it holds more than tensors and plain data. OSError: it cannot be
    opened.
    """
    with path.open("rb"):
        pass  # a file that is missing or forbidden is not a damaged one
    try:
        if damaged := _damaged_part(path):
            raise ValueError(f"the checksum of {damaged} is another")
        return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, pickle.UnpicklingError):
        raise
    except Exception as error:  # torch's and Python's readers raise all kinds on damaged files
        reason = first_line(error)
        raise ValueError(f"{path}: damaged, or no torch file ({reason})") from None


def _damaged_part(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        return None  # cut off, of an old format, or something else: torch says which
    with zipfile.ZipFile(path) as parts:
        return parts.testzip()
