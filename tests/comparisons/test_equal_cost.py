"""What methods are compared at, and a comparison in parts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from advprop.comparisons import comparing
from advprop.comparisons.comparing import compare
from advprop.comparisons.plan import plan_jobs
from advprop.comparisons.sources import read_results
from advprop.comparisons.step_costs import STEP_COSTS, StepTimes, step_costs
from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.data.reading import UnreadableImageError
from advprop.data.splits import ArraySplit
from advprop.recipes.builtin import digits, mnist5k
from advprop.training.stopping import NotFiniteError

QUICK = ["training.num_epochs=1", "training.warmup_epochs=0", "data.num_train=50"]
METHODS = ("vanilla", "mixed", "advprop")


def costs(configs: Mapping[str, RunConfig]) -> StepTimes:
    known = {"vanilla": 1.0, "mixed": 3.1, "advprop": 4.0}
    return StepTimes({name: known[name] for name in configs}, {})


def test_at_equal_seconds_each_method_trains_as_long_as_the_dearest() -> None:
    config = apply_overrides(mnist5k(), ["training.num_epochs=20", "training.warmup_epochs=2"])
    jobs = plan_jobs(config, Path("out"), METHODS, 2, [], measure=costs)
    epochs = {job.method: job.config.training.num_epochs for job in jobs}
    assert epochs == {"mixed": 25, "advprop": 20, "vanilla_equal_cost": 80}
    longer = next(job.config.training for job in jobs if job.method == "vanilla_equal_cost")
    assert longer.warmup_epochs == 8  # the schedule is stretched with it
    assert len(jobs) == 6


def test_at_equal_passes_vanilla_alone_trains_longer() -> None:
    config = apply_overrides(mnist5k(), ["training.num_epochs=20"])
    jobs = plan_jobs(config, Path("out"), METHODS, 1, [])
    epochs = {job.method: job.config.training.num_epochs for job in jobs}
    assert epochs == {"vanilla": 20, "mixed": 20, "advprop": 20, "vanilla_equal_cost": 100}


def test_steps_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = apply_overrides(digits(), QUICK)
    configs = {name: config.with_method(name) for name in ("vanilla", "advprop")}
    path = tmp_path / STEP_COSTS
    found = step_costs(configs, path, turns=2).costs
    assert found["vanilla"] == 1
    assert found["advprop"] > 0
    assert json.loads(path.read_text())["costs"] == found
    monkeypatch.setattr(comparing.step_costs.__module__ + "._measured", _never)
    assert step_costs(configs, path) == (found, {})
    assert [entry.name for entry in tmp_path.iterdir()] == [STEP_COSTS]


@pytest.mark.parametrize(("workers", "read"), [(0, 4 + 1), (1, 0)])
def test_reading_counts_where_the_process_that_trains_does_it(
    workers: int, read: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an epoch of 4 batches that are trained on, and one more in the one turn."""
    whole, here = ArraySplit.images, []
    monkeypatch.setattr(ArraySplit, "images", lambda s, keys: here.append(keys) or whole(s, keys))
    sizes = ["data.num_train=80", "training.batch_size=20", f"training.num_workers={workers}"]
    config = apply_overrides(digits(), [*QUICK, *sizes]).with_method("vanilla")
    step_costs({"vanilla": config}, tmp_path / STEP_COSTS, turns=1)
    assert len(here) == read


def _never(*_: object) -> StepTimes:
    raise AssertionError("measured again")


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_processes_that_measure_at_the_same_time_use_what_the_first_wrote(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, path = apply_overrides(digits(), QUICK), tmp_path / STEP_COSTS
    first = {"costs": {"vanilla": 1.0, "mixed": 7.0}, "threads": 1, "turns": 2}

    def overtaken(*_: object) -> StepTimes:
        path.write_text(json.dumps(first))
        return StepTimes({"vanilla": 1.0, "mixed": 5.0}, {})

    monkeypatch.setattr(comparing.step_costs.__module__ + "._measured", overtaken)
    if not links:
        monkeypatch.setattr("os.link", _refused)
    configs = {name: config.with_method(name) for name in ("vanilla", "mixed")}
    assert step_costs(configs, path).costs == first["costs"]
    assert [entry.name for entry in tmp_path.iterdir()] == [STEP_COSTS]


def test_costs_that_several_commands_add_are_those_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another command measures "mixed" and "sam" while this one measures "mixed" and "advprop"."""
    path = tmp_path / STEP_COSTS
    before = {"costs": {"vanilla": 1.0}, "threads": 1, "turns": 2}
    meanwhile = {**before, "costs": {"vanilla": 1.0, "mixed": 7.0, "sam": 2.0}}
    found = StepTimes({"vanilla": 1.0, "mixed": 5.0, "advprop": 4.0}, {})

    def overtaken(*_: object) -> StepTimes:
        path.write_text(json.dumps(meanwhile))
        return found

    monkeypatch.setattr(comparing.step_costs.__module__ + "._measured", overtaken)
    configs = {name: digits().with_method(name) for name in found.costs}
    for first in (before, None):
        path.unlink(missing_ok=True)
        if first:
            path.write_text(json.dumps(first))
        assert step_costs(configs, path).costs == {"vanilla": 1.0, "mixed": 7.0, "advprop": 4.0}
        assert json.loads(path.read_text())["costs"]["sam"] == 2.0


@pytest.mark.parametrize(
    ("changes", "refused"),
    [
        (["model.options.width=5"], "model.options.width: then nothing, now 5"),
        (["training.batch_size=7"], "training.batch_size: then .*, now 7"),
        (["method.attack.num_steps=1"], "method.attack.num_steps: then 3, now 1"),
        (["training.num_epochs=9", "method.attack.threat_model.epsilon=0.01"], None),
        (["training.num_workers=1"], "training.num_workers: then 0, now some"),
        (["evaluation.restarts=2", "training.keep_checkpoints=1"], None),
    ],
)
def test_costs_of_other_settings_are_refused_and_kept(
    changes: list[str], refused: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing.step_costs.__module__ + "._measured", lambda *_: costs(configs))
    config, path = digits().with_method("advprop"), tmp_path / STEP_COSTS
    configs = {"vanilla": digits().with_method("vanilla"), "advprop": config}
    found, written = step_costs(configs, path), path.read_bytes()
    changed = configs | {"advprop": apply_overrides(config, changes)}
    if refused is None:
        assert step_costs(changed, path) == found
    else:
        with pytest.raises(ValueError, match=f"timed with other settings; give(.|\n)*{refused}"):
            step_costs(changed, path)
    assert path.read_bytes() == written


def _refused(*_: object) -> None:
    raise PermissionError("no hard links here")


def test_damaged_costs_are_named(tmp_path: Path) -> None:
    (tmp_path / STEP_COSTS).write_text('{"costs": {"vanilla": "much"}, "threads": 1, "turns": 2}')
    configs = {"vanilla": digits().with_method("vanilla")}
    with pytest.raises(ValueError, match=r"step_costs\.json: damaged.*measured anew"):
        step_costs(configs, tmp_path / STEP_COSTS)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    def kept(configs: Mapping[str, RunConfig], path: Path, threads: int) -> StepTimes:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"costs": costs(configs).costs, "threads": threads, "turns": 2}))
        return costs(configs)

    monkeypatch.setattr(comparing, "step_costs", kept)
    return kept


def test_parts_are_gathered_by_the_same_call(
    tmp_path: Path, measured: Callable[..., object]
) -> None:
    config, out = apply_overrides(digits(), QUICK), tmp_path / "out"
    changes = ["method.attack.num_steps=1"]

    def run(part: tuple[int, int] | None) -> dict[str, object]:
        return compare(
            config, out, methods=["mixed"], num_seeds=1, overrides=changes, equal="seconds",
            part=part,
        )  # fmt: skip

    assert len(run((1, 3))["runs"]) == 1  # type: ignore[arg-type]
    assert not (out / "results.json").exists()
    assert len(run((2, 3))["runs"]) == 1  # type: ignore[arg-type]
    assert run((3, 3))["runs"] == []  # there are two runs only
    finished = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}
    assert len(finished) == 2
    whole = run(None)
    assert len(whole["runs"]) == 2  # type: ignore[arg-type]
    assert whole["step_costs"] == {"vanilla": 1.0, "mixed": 3.1}
    assert finished == {path: path.stat().st_mtime_ns for path in finished}
    assert (
        "(as multiples of a vanilla step: vanilla 1.00, mixed 3.10)"
        in (out / "report.html").read_text()
    )


def test_a_method_that_cannot_be_timed_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 4 images a step, Fast AdvProp has none to attack."""
    monkeypatch.setattr(comparing, "step_costs", partial(step_costs, turns=2))
    found = compare(
        digits(), tmp_path, methods=["fast", "advprop"], num_seeds=1, equal="seconds",
        overrides=[*QUICK[:2], "data.num_train=12", "training.batch_size=4"],
    )  # fmt: skip
    assert [run["method"] for run in found["runs"]] == ["advprop", "vanilla_equal_cost"]
    (failed,) = found["failed"]
    assert (failed["method"], failed["seed"]) == ("fast", 0)
    assert "batch" in failed["error"]
    assert set(found["step_costs"]) == {"vanilla", "advprop"}
    assert not (tmp_path / "runs/fast-seed0").exists()


def test_steps_that_fail_in_their_course_are_refused_and_no_fault_of_ours_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = apply_overrides(digits(), QUICK)
    configs = {name: config.with_method(name) for name in ("vanilla", "advprop", "mixed")}
    errors: dict[str, Exception] = {"mixed": NotFiniteError("the loss became nan")}

    def steps(config: RunConfig, folder: Path) -> Iterator[float]:
        yield from (2.0, 2.0) if config.method.kind == "advprop" else (1.0, 1.0)
        if error := errors.get(config.method.kind):
            raise error
        yield from (1.0, 1.0)

    monkeypatch.setattr(comparing.step_costs.__module__ + "._steps", steps)
    found = step_costs(configs, tmp_path / STEP_COSTS, turns=4)
    assert found == ({"vanilla": 1.0, "advprop": 1.5}, {"mixed": "the loss became nan"})
    faults = [("vanilla", ValueError("no images")), ("advprop", RuntimeError("a fault"))]
    for kind, error in (*faults, ("advprop", UnreadableImageError("cannot read"))):
        errors[kind] = error
        with pytest.raises(type(error), match=str(error)):
            step_costs(configs, tmp_path / "other.json", turns=4)
        del errors[kind]


def test_costs_of_the_comparison_are_those_that_it_trains_by(
    tmp_path: Path, measured: Callable[..., object]
) -> None:
    def gone(_: object) -> None:
        (tmp_path / "out" / STEP_COSTS).unlink(missing_ok=True)

    found = compare(
        apply_overrides(digits(), QUICK), tmp_path / "out", methods=["mixed"], num_seeds=1,
        equal="seconds", overrides=["method.attack.num_steps=1"], report_finished=gone,
    )  # fmt: skip
    assert found["step_costs"] == {"vanilla": 1.0, "mixed": 3.1}
    assert read_results(tmp_path / "out")["step_costs"] == found["step_costs"]


def test_another_folder_is_left_alone_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty, and not a comparison"):
        compare(digits(), tmp_path, equal="seconds")
    assert [entry.name for entry in tmp_path.iterdir()] == ["letter.txt"]
