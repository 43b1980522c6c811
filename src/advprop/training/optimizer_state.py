"""Load saved states of optimiser and loss scale, checked before a step could fail on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn


def load_optimizer(optimizer: Any, state: Any) -> None:
    """Load `state` into an optimiser, or accelerate's wrapper, with the same parameters.

    Raises ValueError, KeyError, TypeError or AttributeError if it does not fit.
    """
    groups = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for own, loaded in zip(groups, optimizer.param_groups, strict=True):
        for name, value in own.items():
            if isinstance(value, int | float):
                check_number(name, loaded[name])
    parameters = {p for group in optimizer.param_groups for p in group["params"]}
    for parameter, values in optimizer.state.items():
        if parameter not in parameters:
            raise ValueError(f"the optimiser has no parameter {parameter!r}")
        for name, value in values.items():
            _check_value(name, value, parameter)


def load_scaler(scaler: Any, state: Mapping[str, Any]) -> None:
    """Load the state of a loss scale; raises the errors of `load_optimizer`, or RuntimeError."""
    for name, value in state.items():
        check_number(name, value, at_least=0)
    scaler.load_state_dict(state)


def check_number(
    name: str, value: object, *, at_least: float = -math.inf, at_most: float = math.inf
) -> None:
    """Raise ValueError unless `value` is a finite number within the bounds."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} {value!r}: a finite number is expected")
    if not at_least <= value <= at_most:
        raise ValueError(f"{name} {value!r}: a number from {at_least} to {at_most} is expected")


def _check_value(name: str, value: object, parameter: nn.Parameter) -> None:
    """Raise ValueError unless `value` can be an optimiser's state for `parameter`."""
    if isinstance(value, Tensor):
        shape, wanted = tuple(value.shape), tuple(parameter.shape)
        # factored moments have fewer dimensions or sizes of 1; quantised ones are tables
        fits = len(shape) < max(2, len(wanted)) or (
            len(shape) == len(wanted)
            and all(size in (1, full) for size, full in zip(shape, wanted, strict=True))
        )
        if not fits:
            raise ValueError(f"{name} has shape {shape}, its parameter {wanted}")
    elif not isinstance(value, int | float | Mapping | Sequence | None) or isinstance(value, str):
        raise ValueError(f"{name} {value!r}: a tensor or a number is expected")
