"""Load weights completely and exactly, or raise an error and change nothing."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def load_exactly(model: nn.Module, weights: object, *, source: str, remedy: str) -> None:
    """Load `weights`, a mapping from names to tensors, which must match the model exactly.

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
    """Return the names of the tensors that differ between `weights` and the model, by the fault."""
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
    """Describe a tensor's shape, its type without precision, and an unusual layout or device."""
    number = "float" if tensor.is_floating_point() else str(tensor.dtype).removeprefix("torch.")
    words = [str(tuple(tensor.shape)), *([number] * (number != "float"))]
    words += [str(tensor.layout).removeprefix("torch.")] * (tensor.layout != torch.strided)
    return " ".join(words + ["without values"] * tensor.is_meta)
