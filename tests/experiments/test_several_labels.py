"""Pictures of several digits: their labels, and splits that share no digit."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from advprop.data.sets.table import load_table
from advprop.data.view import View

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def test_pictures_hold_three_or_four_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    several = importlib.import_module("several_labels")
    monkeypatch.setattr(several, "COUNTS", {"train": 200, "validation": 20, "test": 20})
    for name in ("one", "two"):
        several.write(tmp_path / name)
    data = load_table(tmp_path / "one" / "labels.csv", View(image_size=32, channels=1, crop_pct=1))
    assert data.class_names == tuple(f"digit {digit}" for digit in range(10))
    for split in (data.validation, data.test):
        assert set(split.labels.sum(dim=1).tolist()) == {3.0, 4.0}
    unknown = data.train.labels.isnan()
    assert 0.03 < unknown.float().mean() < 0.07
    assert 0.05 < (data.test.image(0) > 0.2).float().mean() < 0.4
    assert data.test.image(0).shape == (1, 32, 32)
    tables = [(tmp_path / name / "labels.csv").read_text() for name in ("one", "two")]
    assert tables[0] == tables[1]
