"""What a failing suite for all methods tells the author of a new one."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import fields

import pytest
from case import Case


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    """Add to what a test of a `Case` raises where the method's differences are stated."""
    try:
        return (yield)
    except (Exception, pytest.fail.Exception) as error:
        if isinstance(pyfuncitem.funcargs.get("case"), Case):
            names = ", ".join(field.name for field in fields(Case))
            error.add_note(
                "If the method differs on purpose, say so in CASES of the method's own test file "
                f"(fields of a Case: {names})."
            )
        raise
