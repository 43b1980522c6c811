"""Runs the tests of fake CUDA tensors in a new Python, as their backward passes need it.

python tests/devices/test_fake_cuda.py [-k NAME]    # by hand, with options of pytest
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from fake_cuda import NoCompilerError, environment

TRAINING, EVALUATION = (
    Path(__file__).with_name(name)
    for name in ("training_on_fake_cuda.py", "evaluation_on_fake_cuda.py")
)


def run(options: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Pytest over both files; NoCompilerError where there is no C compiler."""
    plain = ["-p", "no:xdist", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plain, str(TRAINING), str(EVALUATION), *options]
    return subprocess.run(command, env=environment(folder), capture_output=True, text=True)


@pytest.mark.parametrize("marks", ["not full", pytest.param("full", marks=pytest.mark.full)])
def test_on_fake_cuda(marks: str, tmp_path: Path) -> None:
    try:
        done = run(["-m", marks], tmp_path)
    except NoCompilerError as error:
        pytest.skip(str(error))
    assert done.returncode == 0, done.stdout + done.stderr


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        done = run(sys.argv[1:], Path(folder))
    print(done.stdout + done.stderr)
    sys.exit(done.returncode)
