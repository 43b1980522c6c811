"""What all tests share: an environment of their own, one thread, shape checks at run time."""

from __future__ import annotations

import os
import re
import sys
import time
from enum import Enum
from pathlib import Path

# Of the caller's environment only what finds programs and packages is left, here and in child
# processes: no shell, scheduler or continuous integration decides a test. Devices are hidden.
_KEPT = ("PATH", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
_KEPT += ("TMPDIR", "USER", "LOGNAME", "CALLERS_HOME")
_KEPT_KINDS = ("PYTEST_", "PIP_", "PLAYWRIGHT_", "SSL_", "HTTP_PROXY", "HTTPS_PROXY")
_environment = {
    name: value
    for name, value in os.environ.items()
    if name in _KEPT or name.upper().startswith(_KEPT_KINDS)
}
_environment.setdefault("CALLERS_HOME", os.environ.get("HOME", "/"))  # pip's settings are there
os.environ.clear()
os.environ.update(
    _environment,
    HOME=os.devnull,  # a folder in which nothing can be read or written
    LC_ALL="C.UTF-8",
    TZ="UTC",
    COLUMNS="80",
    CUDA_VISIBLE_DEVICES="",
    HF_HUB_OFFLINE="1",
    NO_PROXY="127.0.0.1",
    OMP_NUM_THREADS="1",
)
time.tzset()

import torch  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

sys.path.insert(0, str(Path(__file__).parent))  # for `from tiny import ...` in every folder

# a kill loses nothing of what was written, and waiting for the disk is a tenth of a small training
os.fsync = lambda _: None

torch.set_num_threads(1)  # bit-equality holds at one thread count

CHECKED = ["advprop.attacks", "advprop.methods", "advprop.shapes", "advprop.tasks"]
install_import_hook(CHECKED, "shape_checks.checked")


def pytest_make_parametrize_id(config: object, val: object, argname: str) -> str | None:
    """A name for a parameter that pytest would only number: its text, without addresses."""
    if val is None or isinstance(val, str | int | float | complex | re.Pattern | Enum):
        return None  # pytest names these
    if isinstance(val, bytes | set | frozenset) or hasattr(val, "__name__"):
        return None  # and these; or their text is not the same in every process
    text = re.sub(r"<(?:function )?([\w.<>]+)(?: object)? at 0x[0-9a-f]+>", r"\1", repr(val))
    return re.sub(r"\s+", " ", text)[:60]
