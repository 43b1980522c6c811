"""The run-time check of argument types and tensor shapes that conftest.py installs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from beartype import BeartypeConf, beartype

F = TypeVar("F", bound=Callable[..., object])


def checked(function: F) -> F:
    """`function`, checked; constructors are left alone, for they explain users' mistakes."""
    if function.__name__ == "__init__":
        return function
    # is_pep484_tower: a whole number is a float, as type checkers have it
    return beartype(function, conf=BeartypeConf(is_pep484_tower=True))
