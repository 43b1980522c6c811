"""The benchmarks: how they measure, and that they run by themselves."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import advprop

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("measuring")
    del sys.modules["measuring"]


def test_actions_alternate_and_the_first_round_is_not_counted(measuring: ModuleType) -> None:
    now, ran = 0.0, []

    def action(name: str, seconds: list[float]) -> None:
        nonlocal now
        ran.append(name)
        now += seconds[ran.count(name) - 1]

    times = measuring.interleaved(
        {
            "one": lambda: action("one", [9.0, 2.0, 4.0, 6.0]),
            "other": lambda: action("other", [9.0, 1.0, 2.0, 2.0]),
        },
        repeats=3,
        clock=lambda: now,
    )
    assert times.seconds == {"one": [2.0, 4.0, 6.0], "other": [1.0, 2.0, 2.0]}
    rounds = [ran[first : first + 2] for first in range(0, 8, 2)]
    assert all(set(both) == {"one", "other"} for both in rounds)
    assert len({tuple(both) for both in rounds}) == 2  # neither always comes first
    row = times.ratio("one", "other", target=2.5)
    assert (row.value, row.low, row.high, row.repeats) == (2.0, 2.0, 2.5, 3)
    assert row.verdict == "pass"
    assert times.ratio("one", "other", target=1.9).verdict == "miss"
    assert times.ratio("one", "other").verdict == ""
    assert times.absolute("one", scale=10.0).value == 40.0
    assert times.rate("other", 8).value == 4.0


def test_every_benchmark_is_short_and_is_run() -> None:
    source = (FOLDER / "run.py").read_text()
    for path in FOLDER.glob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 250
        if "\ndef measure(" in text:
            assert f'    "{path.stem}",' in source, f"run.py leaves {path.stem} out"
            assert f"    python benchmarks/{path.name} [--quick]" in text
            assert f"| `{path.stem}` |" in (FOLDER.parent / "docs" / "benchmarks.md").read_text()


def test_a_step_of_advprop_runs_through_few_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    house = importlib.import_module("house")
    source = Path(advprop.__file__).parents[1]
    assert house.shape(source).keys() < house.WANTED.keys()
    calls = house.files_of_a_step(source)
    assert {"methods/advprop.py", "methods/learning.py", "attacks/pgd.py"} <= {*calls}
    assert len({*calls}) <= 12
    assert sum(one != other for one, other in pairwise(calls)) <= 120


@pytest.mark.usefixtures("measuring")
def test_the_demos_parts_are_functions_that_are_there() -> None:
    """A profile has no time for a name that is gone, and says so to nobody."""
    parts = importlib.import_module("demo").PARTS
    for module, function, *_ in parts.values():
        text = (Path(advprop.__file__).parent / module).read_text()
        assert f"def {function}(" in text, module


@pytest.mark.usefixtures("measuring")
def test_the_demo_is_measured_as_the_makefile_has_it() -> None:
    demo = importlib.import_module("demo")
    words = demo.command_of_the_demo()
    assert demo.follow("compare", words) == ["mnist5k"]
    assert "training.num_epochs=11" in demo.follow("--set", words)


@pytest.mark.full
def test_a_run_writes_table_and_results(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    command = [sys.executable, str(FOLDER / "run.py"), "--quick", "--out", str(out)]
    done = subprocess.run(
        [*command, "--only", "switching", "gpu"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "one branch" in done.stdout
    result = json.loads(out.read_text())
    assert result["quick"]
    assert result["versions"]["torch"]
    assert result["machine"]["threads"] == 1
    switch = result["rows"][0]
    assert switch["benchmark"] == "switching"
    assert 0 < switch["low"] <= switch["value"] <= switch["high"]
    assert switch["unit"] == "us"
    assert switch["verdict"] in ("pass", "miss")
    assert result["rows"][-1]["note"] == "not run here: no GPU" or result["machine"]["gpu"]
    again = subprocess.run([*command, "--only", "gpu"], capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    rows = json.loads(out.read_text())["rows"]
    assert rows[0] == switch  # others stay, with the date they are of
    assert [row["benchmark"] for row in rows].count("gpu") == 1


@pytest.mark.full
@pytest.mark.usefixtures("measuring")
def test_the_script_for_a_gpu_runs_on_a_cpu(tmp_path: Path) -> None:
    """With tiny nets: what ten minutes on a GPU are spent on has to run to its end there."""
    out = tmp_path / "gpu.json"
    command = [sys.executable, str(FOLDER / "gpu.py"), "--quick", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    head, *rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert done.returncode == 0, [row for row in rows if row["value"] is None]
    assert head["machine"]["cores"]
    blocks = importlib.import_module("gpu").BLOCKS
    measured = {row["case"].partition(":")[0] for row in rows if row["value"] is not None}
    assert measured == set(blocks)
    exact = [row for row in rows if row["what"] == "tensors that differ"]
    assert [row["value"] for row in exact] == [0, 0]  # on a CPU, whatever the setting
