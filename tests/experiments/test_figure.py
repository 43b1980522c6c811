"""The figure of docs/measured.md shows the experiment's numbers, and is the one in docs/."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
MARK = ".//{*}circle"


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))


def written(folder: Path, accuracies: dict[tuple[str, str], list[float]]) -> Path:
    runs = [
        {"group": group, "label": label, "seed": seed, "clean_accuracy": value}
        for (group, label), values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    path = folder / "budgets-emoji.json"
    path.write_text(json.dumps({"runs": runs}))
    return path


def test_marks_lie_where_the_axis_says(tmp_path: Path) -> None:
    from figure import figure

    accuracies = {
        ("emoji, 1 x vanilla", "vanilla"): [0.50, 0.54],
        ("emoji, 1.5 x vanilla", "vanilla"): [0.60, 0.62],
        ("emoji, 1.5 x vanilla", "a < b"): [0.70, 0.72],
    }
    root = ElementTree.fromstring(figure([written(tmp_path, accuracies)]))
    marks = {mark[0].text: float(mark.attrib["cx"]) for mark in root.findall(MARK) if len(mark)}
    assert set(marks) == {
        "vanilla, 1 x vanilla: 52.0 %",
        "vanilla, 1.5 x vanilla: 61.0 %",
        "a < b, 1.5 x vanilla: 71.0 %",
    }
    labels = [text for text in root.findall("{*}text") if (text.text or "").endswith(" %")]
    places = {float(text.text.split()[0]): float(text.attrib["x"]) for text in labels if text.text}
    (low, left), *_, (high, right) = sorted(places.items())
    for told, place in marks.items():
        value = float(str(told).split(": ")[1].split()[0])
        assert place == pytest.approx(left + (right - left) * (value - low) / (high - low), abs=0.2)
    dashed = next(line for line in root.findall("{*}line") if line.attrib["class"] == "vanilla")
    assert float(dashed.attrib["x1"]) == marks["vanilla, 1.5 x vanilla: 61.0 %"]


def test_the_readme_shows_the_results() -> None:
    from figure import RESULTS, figure

    expected = figure(sorted(RESULTS.glob("budgets-*.json")))
    assert (ROOT / "docs" / "accuracy_in_equal_time.svg").read_text() == expected
