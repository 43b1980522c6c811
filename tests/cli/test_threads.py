"""How torch's threads wait, where the command line starts them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

NAMES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
PROGRAM = """
import os, sys
from advprop.cli import main
main.app = lambda *_, **__: print("torch" in sys.modules, os.environ.get("OMP_WAIT_POLICY"))
main.run()
"""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "PASSIVE"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"),
        ({"GOMP_SPINCOUNT": "100"}, None),
        ({"KMP_BLOCKTIME": "0"}, None),
    ],
    ids=["unset", "policy", "gomp", "kmp"],
)
def test_threads_sleep_unless_the_user_says_otherwise(given, expected):
    """Decided before torch is loaded, whose OpenMP reads it once."""
    others = {name: value for name, value in os.environ.items() if name not in NAMES}
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=others | given,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert ended.stdout == f"False {expected}\n"
