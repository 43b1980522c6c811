"""AdvProp: image classifiers that get better because they also learn from adversarial examples.

`__init__.pyi` lists the public names; type checkers and this module both read it. A name is
imported on first use, since torch and timm take seconds to import.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_MODULE_OF = {
    name: module for module, name in re.findall(r"^from (\S+) import \w+ as (\w+)$", _STUB, re.M)
}

__all__ = ["__version__", *_MODULE_OF]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'advprop' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
