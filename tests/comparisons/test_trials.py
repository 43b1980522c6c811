"""Varied settings, chosen on validation images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from advprop.comparisons import trials as module
from advprop.comparisons.candidates import Candidates, first_candidates, read_vary
from advprop.comparisons.comparing import compare
from advprop.comparisons.plan import Job, plan_jobs
from advprop.comparisons.step_costs import StepTimes
from advprop.comparisons.trials import SEED, Trials
from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides, read_config
from advprop.recipes.builtin import digits

QUICK = ["training.num_epochs=1", "training.warmup_epochs=0", "data.num_train=50"]
QUICK += ["method.attack.num_steps=1"]
EPSILON = "method.attack.threat_model.epsilon"
VALUES = (0.1, 0.2, 0.4)
EPSILONS = [f"{EPSILON}={value}" for value in VALUES]
VARIED = f"{EPSILON}=0.1,0.2,0.4"
RATES = "training.learning_rate=0.1,0.2"


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("method.rho=0.05,0.1", ["method.rho=0.05", "method.rho=0.1"]),
        ("method.rho=4/255, 8/255", ["method.rho=4/255", "method.rho=8/255"]),
        ("method.rho=1,1,2", ["method.rho=1", "method.rho=2"]),
        ("training.ema_decay=none,0.9", ["training.ema_decay=none", "training.ema_decay=0.9"]),
        (
            "data.augmentation.scale=[0.2,1],[0.5,1]",
            ["data.augmentation.scale=[0.2, 1]", "data.augmentation.scale=[0.5, 1]"],
        ),
    ],
)
def test_values_are_separated_by_commas(text: str, overrides: list[str]) -> None:
    assert read_vary(text) == overrides


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("method.rho=0.1", "two values or more"),
        ("method.rho=0.1,0.1", "two values or more"),
        ("method.rho=0.1,", "two values or more"),
        ("method.rho", "two values or more"),
        ("seed=1,2", "--vary seed: only settings of method, training"),
        ("model.name=a,b", "--vary model.name: only"),
        ("data.num_train=10,20", "--vary data.num_train: only"),
        ("training.num_epochs=1,2", "--vary training.num_epochs: only"),
        ("method.kind=vanilla,advprop", "--vary method.kind: only"),
    ],
)
def test_what_is_not_varied_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_vary(text)


def test_a_setting_is_varied_once() -> None:
    with pytest.raises(ValueError, match=r"--vary method\.rho: given twice; write all its values"):
        planned(["sam"], "method.rho=0.05,0.1", RATES, "method.rho=0.2,0.3")


def planned(
    methods: Sequence[str],
    *varied: str,
    choose: Callable[[Candidates], Mapping[str, object]] = first_candidates,
    measure: Callable[[Mapping[str, RunConfig]], StepTimes] | None = None,
) -> tuple[list[Job], dict[str, list[tuple[str, ...]]]]:
    """The jobs, and the settings that `choose` was given of each method."""
    given: dict[str, list[tuple[str, ...]]] = {}

    def kept(candidates: Candidates) -> Mapping[str, object]:
        given.update({m: [one.settings for one in own] for m, own in candidates.items()})
        return choose(candidates)

    config = apply_overrides(digits(), QUICK[1:3])
    jobs = plan_jobs(config, Path("out"), methods, 1, [], vary=varied, choose=kept, measure=measure)
    return jobs, given


def test_each_method_has_the_combinations_of_the_settings_that_it_has() -> None:
    rates = read_vary(RATES)
    _, given = planned(["advprop", "sam"], VARIED, RATES)
    assert given["vanilla"] == given["sam"] == [(rates[0],), (rates[1],)]
    assert given["advprop"] == [(epsilon, rate) for epsilon in EPSILONS for rate in rates]


def test_vanilla_of_equal_cost_takes_what_vanilla_chose() -> None:
    jobs, _ = planned(["advprop"], RATES, choose=lambda found: {m: o[1] for m, o in found.items()})
    assert [job.method for job in jobs] == ["advprop", "vanilla_equal_cost"]
    assert [job.config.training.learning_rate for job in jobs] == [0.2, 0.2]


def test_steps_of_equal_work_are_timed_once_and_all_candidates_take_equal_time() -> None:
    timed: dict[str, float] = {}

    def measure(configs: Mapping[str, RunConfig]) -> StepTimes:
        for name, config in configs.items():
            passes = config.method.build().passes_per_image
            timed[name] = passes * config.training.batch_size / batch_size
        return StepTimes(timed, {})

    batch_size = digits().training.batch_size
    steps = "method.attack.num_steps=1,3"
    choose = lambda found: {method: own[-1] for method, own in found.items()}  # noqa: E731
    jobs, _ = planned(["advprop"], VARIED, steps, choose=choose, measure=measure)
    fewer = f"advprop {EPSILONS[0]} method.attack.num_steps=1"
    assert timed == {"vanilla": 1, "advprop": 5, fewer: 3}  # the recipe's attack has three steps
    epochs = digits().training.num_epochs
    assert {job.method: job.config.training.num_epochs for job in jobs} == {
        "advprop": epochs,
        "vanilla_equal_cost": 5 * epochs,
    }
    timed.clear()
    sizes = f"training.batch_size={batch_size},{2 * batch_size}"
    jobs, _ = planned(["advprop"], sizes, choose=choose, measure=measure)
    assert (
        timed[f"advprop training.batch_size={2 * batch_size}"] == 10
    )  # twice the images take twice the time
    assert {job.method: job.config.training.num_epochs for job in jobs} == {
        "advprop": epochs,
        "vanilla_equal_cost": 5 * epochs,
    }


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | Exception]:
    """What trials give by the names of their folders, in place of trainings."""
    found: dict[str, float | Exception] = {}

    def outcomes(jobs: Sequence[Job], *_: int) -> Iterator[tuple[Job, object]]:
        for job in reversed(jobs):
            accuracy = found[job.folder.name]
            told = {"validation_accuracy": accuracy, "epochs": 1, "train_seconds": 1.0}
            yield job, accuracy if isinstance(accuracy, Exception) else told

    monkeypatch.setattr(module, "outcomes", outcomes)
    return found


def trials_in(folder: Path) -> Trials:
    return Trials(folder, jobs=1, part=None, report_finished=lambda row: None)


@pytest.mark.parametrize("values", ['["a/b"],["a b"]', f'["{"a" * 99}1"],["{"a" * 99}2"]'])
def test_every_trial_has_a_folder_of_its_own(
    values: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of folders lack some characters, and all after the 80th of a setting."""
    seen: list[Path] = []

    def outcomes(jobs: Sequence[Job], *_: int) -> Iterator[tuple[Job, object]]:
        seen.extend(job.folder for job in jobs)
        return iter([(job, ValueError("not here")) for job in jobs])

    monkeypatch.setattr(module, "outcomes", outcomes)
    varied = [f"training.optimizer_options.{name}={values}" for name in "abcd"]
    planned(["vanilla"], varied[0], choose=trials_in(tmp_path).choose)
    planned(["vanilla"], *varied, choose=trials_in(tmp_path).choose)
    assert len(set(seen)) == len(seen) == 2 + 16
    assert max(len(folder.name) for folder in seen) < 255


@pytest.mark.parametrize(
    ("accuracies", "best"),
    [
        ((0.5, 0.7, 0.6), 1),
        ((0.7, 0.7, 0.6), 0),  # the first of equal ones
        ((ValueError("diverged"), 0.2, 0.1), 1),
    ],
)
def test_the_best_on_validation_images_is_chosen(
    accuracies: Sequence[float | Exception],
    best: int,
    untrained: dict[str, float | Exception],
    tmp_path: Path,
) -> None:
    untrained |= {f"advprop-{e}": a for e, a in zip(EPSILONS, accuracies, strict=True)}
    trials = trials_in(tmp_path)
    jobs, _ = planned(["vanilla", "advprop"], VARIED, choose=trials.choose)
    chosen = next(job.config for job in jobs if job.method == "advprop")
    epsilon = VALUES[best]
    assert chosen.method.attack.threat_model.epsilon == pytest.approx(epsilon)
    assert [row["chosen"] for row in trials.rows] == [place == best for place in range(3)]
    assert [row["settings"] for row in trials.rows] == [{EPSILON: e} for e in VALUES]
    errors = [str(a) if isinstance(a, Exception) else None for a in accuracies]
    assert [row.get("error") for row in trials.rows] == errors


def test_a_method_of_which_no_setting_can_be_trained_is_not(
    untrained: dict[str, float | Exception], tmp_path: Path
) -> None:
    untrained |= {f"advprop-{epsilon}": ValueError("diverged") for epsilon in EPSILONS}
    jobs, _ = planned(["mixed", "advprop"], choose=trials_in(tmp_path).choose)
    assert {job.error for job in jobs} == {""}  # nothing is varied
    untrained |= {f"mixed-{epsilon}": 0.5 for epsilon in EPSILONS}
    jobs, _ = planned(["mixed", "advprop"], VARIED, choose=trials_in(tmp_path).choose)
    assert {job.method: job.error for job in jobs} == {
        "mixed": "",
        "advprop": "none of 3 varied settings can be trained: diverged",
        "vanilla_equal_cost": "",
    }


def test_settings_are_tried_once_with_a_seed_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, object]] = []
    out, options = tmp_path / "out", {"methods": ["mixed"], "num_seeds": 1}
    options |= {"overrides": QUICK, "vary": [f"{EPSILON}=0.1,0.4"], "jobs": 1}
    found = compare(digits(), out, report_finished=seen.append, **options)  # type: ignore[arg-type]
    assert len(found["runs"]) == 2
    assert [row["method"] for row in found["trials"]] == ["mixed", "mixed"]
    for row in found["trials"]:
        config = read_config(out / row["folder"] / "config.json")
        assert config.seed == SEED
        assert config.method.attack.threat_model.epsilon == row["settings"][EPSILON]
        assert not (out / row["folder"] / "test.json").exists()  # no test image is looked at
    (chosen,) = [row for row in found["trials"] if row["chosen"]]
    assert chosen["validation_accuracy"] == max(r["validation_accuracy"] for r in found["trials"])
    run = read_config(out / "runs/mixed-seed0/config.json")
    assert run.method.attack.threat_model.epsilon == chosen["settings"][EPSILON]
    assert ["clean_accuracy" in row for row in seen] == [False, False, True, True]
    assert json.loads((out / "results.json").read_text())["trials"] == found["trials"]
    page = (out / "report.html").read_text()
    assert "Settings chosen on validation images" in page
    assert f"{EPSILON}=0.4" in page

    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("advprop.runs.training.build_trainer", never)
    again = compare(digits(), out, **options)  # type: ignore[arg-type]
    assert again["trials"] == found["trials"]
    part = compare(digits(), out, part=(1, 2), **options)  # type: ignore[arg-type]
    assert len(part["runs"]) == 1


def test_a_part_needs_settings_that_are_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="part 2/3: 2 trials of --vary are not finished: run"):
        compare(
            digits(), tmp_path, methods=["mixed"], overrides=QUICK, vary=[f"{EPSILON}=0.1,0.4"],
            part=(2, 3),
        )  # fmt: skip
    assert [*tmp_path.iterdir()] == []


def test_a_part_knows_the_trials_that_failed(tmp_path: Path) -> None:
    """With 4 images a step, Fast AdvProp has none to attack."""
    out, fractions = tmp_path / "out", "method.attacked_fraction=0.5,0.01"
    options = {"methods": ["fast"], "num_seeds": 1, "overrides": QUICK[:3], "vary": [fractions]}
    found = compare(digits(), out, **options)  # type: ignore[arg-type]
    assert "batch" in found["trials"][1]["error"]
    part = compare(digits(), out, part=(1, 2), **options)  # type: ignore[arg-type]
    assert len(part["runs"]) == 1
    assert part["trials"] == found["trials"]


def test_trials_have_the_processes_of_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[int] = []

    def outcomes(jobs: Sequence[Job], number: int) -> Iterator[tuple[Job, object]]:
        given.append(number)
        return iter([(job, ValueError("not here")) for job in jobs])

    monkeypatch.setattr(module, "outcomes", outcomes)
    trials = Trials(tmp_path, jobs=2, part=None, report_finished=lambda row: None)
    planned(["sam"], "method.rho=0.05,0.1", choose=trials.choose)
    assert given == [2]
