"""Every registered method as the suites try it.

The Case of a method that differs from most, and its variants that are worth the whole suite, stand
in `CASES` of its own test file, `test_NAME.py`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from case import ATTACK_CONFIG, Case

from advprop.config.methods import METHODS, method_config


def _cases(name: str) -> dict[str, Case]:
    """A method's own Case, or the usual one, and its variants."""
    tests = Path(__file__).with_name(f"test_{name}.py")
    own = getattr(import_module(tests.stem), "CASES", {}) if tests.exists() else {}
    return {name: Case(method=method_config(name, ATTACK_CONFIG).build()), **own}


CASES: dict[str, Case] = {key: case for name in METHODS for key, case in _cases(name).items()}
