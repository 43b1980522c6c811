"""Processes that see other images or settings refuse together: which of them, and in what."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TOLD = {
    "fewer images": "process 2 differs from process 0: num_train 15 instead of 16",
    "other pixels": "process 2 differs from process 0: other contents of train images",
    "other validation": "process 2 differs from process 0: num_validation 3 instead of 4",
    "other order": "process 2 differs from process 0: other names or labels of train images",
    "other labels": "process 2 differs from process 0: other contents of train images",
    "other class": "process 2 differs from process 0: class_names ['blue', 'rot'] instead of",
    "other settings": "process 2 differs from process 0: training.learning_rate 0.3 instead of 0.2",
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    script, folder = Path(__file__).with_name("agreeing.py"), tmp_path_factory.mktemp("agreeing")
    done = subprocess.run(
        [sys.executable, str(script), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
        check=True,
    )
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


def test_processes_that_see_the_same_train(ended: dict[str, list[str]]) -> None:
    assert ended["alike"] == ["finished"] * 3


@pytest.mark.parametrize("case", TOLD)
def test_all_refuse_together(case: str, ended: dict[str, list[str]]) -> None:
    first, *others = ended[case]
    assert first.startswith(f"refused: {TOLD[case]}"), first
    assert others == ["ended: 2"] * 2
    assert "sha256:" not in first


def test_one_that_has_no_images_says_so_and_none_waits(ended: dict[str, list[str]]) -> None:
    endings = ended["nothing there"]
    assert endings[2].startswith("refused: there is no folder"), endings
    assert endings[:2] == ["ended: 2"] * 2
