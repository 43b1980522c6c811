"""Read files of weights without running code from them, and load weights exactly."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advprop.files.parsing import first_line


def load_exactly(model: nn.Module, weights: object, *, source: str, remedy: str) -> None:
    """Load `weights`, a mapping from names to tensors, which must match those of `model`.

    Raises ValueError, and changes nothing, if tensors are missing, unknown or of another shape; the
    message names them. Floating-point tensors are converted to the model's precision.
    """
    if not isinstance(weights, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in weights.items()
    ):
        raise ValueError(f"{source}: damaged, its weights are not tensors by name")
    problems = [
        f"{len(found)} {what}, as {', '.join(found[:3])}"
        for what, found in differences(model, weights).items()
        if found
    ]
    if problems:
        raise ValueError(
            f"{source}: weights of another architecture, {'; '.join(problems)}: {remedy}"
        )
    model.load_state_dict(weights)


def differences(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of the tensors that differ between `weights` and `model`, by fault."""
    own = model.state_dict()
    return {
        "missing": [key for key in own if key not in weights],
        "unknown": [key for key in weights if key not in own],
        "of another shape or type": [
            f"{key} is {_kind(weights[key])} instead of {_kind(own[key])}"
            for key in own
            if key in weights and _kind(own[key]) != _kind(weights[key])
        ],
    }


def _kind(tensor: Tensor) -> str:
    """Return a tensor's shape, type without precision, and unusual layout or device, in words."""
    number = "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    words = [str(tuple(tensor.shape)), *([number] * (number != "float"))]
    words += [str(tensor.layout).removeprefix("torch.")] * (tensor.layout != torch.strided)
    return " ".join(words + ["without values"] * tensor.is_meta)


def read_torch_file(path: Path) -> Any:
    """Return the object that `torch.save` wrote to `path`, with tensors on the CPU.

    Raises ValueError if it is no torch file or damaged (checksums included, which torch does not
    check), UnpicklingError if it holds more than tensors and plain data, and OSError if it cannot
    be opened.
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
