"""Runs `on_fake_cuda.py` in a Python that was started for it, as a backward pass there needs.

python tests/devices/test_fake_cuda.py [-k NAME]    # by hand, with options of pytest
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fake_cuda import build_shim

TESTS = Path(__file__).with_name("on_fake_cuda.py")


def run(options: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Pytest over `TESTS`, with the shim preloaded."""
    shim = build_shim(folder)
    environment = {**os.environ, **({} if shim is None else {"LD_PRELOAD": str(shim)})}
    plain = ["-p", "no:xdist", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plain, str(TESTS), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("marks", ["not full", pytest.param("full", marks=pytest.mark.full)])
def test_on_fake_cuda(marks: str, tmp_path: Path) -> None:
    try:
        done = run(["-m", marks], tmp_path)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        done = run(sys.argv[1:], Path(folder))
    print(done.stdout + done.stderr)
    sys.exit(done.returncode)
