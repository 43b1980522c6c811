"""A wheel, installed in an empty environment outside the clone, trains on real images."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.full
def test_a_wheel_trains_mnist5k_outside_the_clone(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["HOME"] = environment["CALLERS_HOME"]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(ROOT)], env=environment, check=True
    )
    (wheel,) = tmp_path.glob("advprop-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (ROOT / "src/advprop").rglob("*.*") if path.suffix != ".pyc"]
    assert {str(path.relative_to(ROOT / "src")) for path in files} <= names
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "empty")], check=True)
    bin_folder = tmp_path / "empty" / "bin"
    install = ["-m", "pip", "install", "--quiet", "--no-compile", f"{wheel}[demo]"]
    subprocess.run([bin_folder / "python", *install], env=environment, check=True)
    train = [bin_folder / "advprop", "train", "mnist5k", "--set", "training.num_epochs=1"]
    ended = subprocess.run(
        train, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "runs/mnist5k-advprop-seed0: training finished" in ended.stdout
    report = [bin_folder / "advprop", "report", "runs/mnist5k-advprop-seed0"]
    subprocess.run(report, cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "runs/mnist5k-advprop-seed0/report.html").stat().st_size > 100_000
