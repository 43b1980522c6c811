"""The engine of the experiments, on a few digits."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from advprop.comparisons.step_costs import StepTimes
from advprop.config import RunConfig
from advprop.files.json_files import read_json

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    monkeypatch.syspath_prepend(str(EXPERIMENTS.parent / "examples"))


def tiny(config: RunConfig) -> RunConfig:
    training = dataclasses.replace(config.training, num_epochs=1, warmup_epochs=0.0)
    data = config.data.model_copy(update={"num_train": 50})
    evaluation = config.evaluation.model_copy(
        update={"attack": config.evaluation.attack.model_copy(update={"num_steps": 1})}
    )
    return config.model_copy(update={"training": training, "data": data, "evaluation": evaluation})


@pytest.mark.parametrize(
    ("experiment", "sets"),
    [
        ("model_size", ("emoji", "mnist5k")),
        ("adversarial_first", ("emoji", "mnist5k")),
        ("attacker", ("emoji", "mnist5k")),
        ("branches", ("emoji", "mnist5k")),
        ("training_data", ("emoji", "mnist5k")),
        ("without_batchnorm", ("emoji", "mnist5k")),
        ("rivals", ("emoji", "mnist5k", "icons")),
        ("crossover", ("emoji", "icons")),
        ("lean_strength", ("icons",)),
        ("lean_longer", ("icons",)),
        ("robust_start", ("emoji",)),
    ],
)
@pytest.mark.parametrize("quick", [False, True])
def test_every_group_has_vanilla_and_configurations_that_differ(
    tmp_path: Path,
    experiment: str,
    sets: tuple[str, ...],
    quick: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import lean
    import study

    module = __import__(experiment)
    stand_ins = {
        "step_costs": lambda configs, path, turns: StepTimes(dict.fromkeys(configs, 1.0), {}),
        "best_on_validation": lambda group, name, options: "lean, 8/255",
        "sources": lambda options: {name: tmp_path / name for name in ("mixed", "advprop")},
    }
    for name, stand_in in stand_ins.items():  # what a plan trains or times
        monkeypatch.setattr(module, name, stand_in, raising=False)
    monkeypatch.setattr(lean, "step_costs", stand_ins["step_costs"])
    options = study.Options(sets=sets, quick=quick, seeds=(0, 1), jobs=1, out=tmp_path)
    for name in sets:
        groups = module.plan(name, options)
        assert len({group.name for group in groups}) == len(groups)
        for group in groups:
            assert group.variants["vanilla"].method.kind == "vanilla"
            folders = {study.folder_of(tmp_path, c, 0) for c in group.variants.values()}
            assert len(folders) == len(group.variants)


@pytest.mark.full
def test_runs_are_shared_measured_and_written_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import settings
    import study

    monkeypatch.setattr(study, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(sys, "argv", ["test", "--sets", "mnist5k", "--seeds", "1", "--jobs", "2"])
    monkeypatch.chdir(tmp_path)
    base = tiny(settings.mnist5k()).with_method("vanilla")
    measured: list[Path] = []

    def plan(name: str, options: study.Options) -> list[study.Group]:
        advprop = tiny(settings.method(base, "advprop"))
        return [study.Group(name="one", variants={"vanilla": base, "advprop": advprop})]

    def measure(folder: Path, config: RunConfig) -> dict[str, float]:
        measured.append(folder)
        return {"shift_accuracy": 0.5}

    for _ in range(2):
        study.main("tried", plan, extras={"shift": measure})
    found = read_json(tmp_path / "results" / "tried-mnist5k.json")
    assert [(row["label"], row["seed"]) for row in found["runs"]] == [
        ("vanilla", 0),
        ("advprop", 0),
    ]
    assert len(measured) == 2
    assert {row["shift_accuracy"] for row in found["runs"]} == {0.5}
    assert all(0 < row["clean_accuracy"] < 1 for row in found["runs"])


def test_the_page_of_tables_is_what_the_results_give() -> None:
    import tables

    page = Path(__file__).parents[2] / "docs" / "reproducing_tables.md"
    assert page.read_text() == tables.page(sorted(tables.RESULTS.glob("*.json")))


def test_tables_hold_means_intervals_and_paired_differences() -> None:
    import tables

    def row(label: str, seed: int, clean: float) -> dict[str, object]:
        costs = {"total_passes": 20.0, "train_seconds": 3.0}
        return {"group": "g", "label": label, "seed": seed, "clean_accuracy": clean, **costs}

    runs = [
        *(row("vanilla", seed, clean) for seed, clean in enumerate((0.50, 0.51, 0.52))),
        *(row("advprop", seed, clean) for seed, clean in enumerate((0.53, 0.545, 0.56))),
        *(row("mixed", seed, clean) for seed, clean in enumerate((0.53, 0.545, 0.56))),
    ]
    command, table = tables.tables({"command": "python x.py", "runs": runs})
    assert command == "`python x.py`"
    lines = table.splitlines()
    assert lines[0] == "| g | passes | seconds | clean | clean, minus vanilla at equal epochs |"
    # t(0.975, 2) = 4.303, times the standard error: deviations of 1, 1.5 and 0.5 points over root 3
    assert lines[2] == "| vanilla | 20 | 3 | 51.0 ± 2.5 |  |"
    assert (
        lines[3]
        == "| advprop | 20 | 3 | 54.5 ± 3.7 | +3.5 (+2.3 to +4.7), p = 0.0067, Holm's p = 0.013 |"
    )


def test_the_table_of_soups_compares_each_weight_with_the_clean_branch() -> None:
    import tables

    def row(seed: int, clean: float, mixed: float) -> dict[str, object]:
        found = {("clean", 0.0): clean, ("clean", 0.5): mixed}
        found |= {("adversarial", 0.0): 0.1, ("adversarial", 0.5): 0.3}
        points = [{"suite": s, "weight": w, "accuracy": a} for (s, w), a in found.items()]
        costs = {"total_passes": 20.0, "train_seconds": 3.0}
        return {"group": "g", "label": "AdvProp", "seed": seed, "soups": points, **costs} | {
            "clean_accuracy": clean
        }

    runs = [row(0, 0.50, 0.53), row(1, 0.51, 0.545), row(2, 0.52, 0.56)]
    *_, table = tables.tables({"command": "python x.py", "runs": runs})
    lines = table.splitlines()
    assert lines[2] == "| AdvProp | 0 | 51.0 ± 2.5 | 10.0 |  |  |"
    assert lines[3].startswith(
        "| AdvProp | 0.5 | 54.5 ± 3.7 | 30.0 | +3.5 (+2.3 to +4.7), p = 0.0067 |"
    )
