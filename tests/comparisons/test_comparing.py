"""Runs side by side that `compare` itself would not choose."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from advprop.auxiliary.norm import AuxiliaryNorm
from advprop.comparisons import jobs as parallel_jobs
from advprop.comparisons.comparing import compare, run_jobs
from advprop.comparisons.plan import Job
from advprop.comparisons.sources import read_results
from advprop.config import RunConfig
from advprop.data.reading import UnreadableImageError
from advprop.data.sets.builtin import load_builtin
from advprop.files.json_files import InUseError
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.folder import build_run_model
from advprop.training.stopping import InterruptedTraining


def quick(config: RunConfig) -> RunConfig:
    training = dataclasses.replace(config.training, num_epochs=1, warmup_epochs=0.0)
    data = config.data.model_copy(update={"num_train": 50})
    return config.model_copy(update={"training": training, "data": data})


def test_comparisons_share_a_run_that_lies_outside_both(tmp_path: Path) -> None:
    config = quick(digits()).with_method("vanilla")
    shared = Job(method="as usual", config=config, folder=tmp_path / "runs" / "one")
    first = run_jobs([shared], tmp_path / "first", recipe="digits")
    written = (shared.folder / "result.json").stat().st_mtime_ns
    again = dataclasses.replace(shared, method="another name")
    second = run_jobs([again], tmp_path / "second", recipe="digits")
    assert (shared.folder / "result.json").stat().st_mtime_ns == written
    assert first["runs"][0]["method"] == "as usual"
    assert second["runs"][0]["method"] == "another name"
    assert second["runs"][0]["folder"] == "../runs/one"
    assert second["runs"][0]["clean_accuracy"] == first["runs"][0]["clean_accuracy"]
    assert (tmp_path / "second" / "report.html").is_file()
    assert run_jobs([again], tmp_path / "second", recipe="digits") == second


@pytest.mark.parametrize("separate", ["both", "affine", "statistics"])
def test_what_branches_own_is_a_setting_of_the_model(separate: str) -> None:
    config = digits()
    settings = config.model.model_copy(update={"separate": separate})
    model = build_run_model(
        config.model_copy(update={"model": settings}), load_builtin("digits", num_train=50)
    )
    norm = next(module for module in model.modules() if isinstance(module, AuxiliaryNorm))
    clean, auxiliary = norm.branches["clean"], norm.branches["adversarial"]
    assert (clean.running_mean is auxiliary.running_mean) == (separate == "affine")
    assert (clean.weight is auxiliary.weight) == (separate == "statistics")


def test_no_processes_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 jobs: give at least 1"):
        run_jobs([], tmp_path, recipe="digits", jobs=0)


def test_workers_take_no_further_run_when_their_parent_is_killed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["compare", "digits", "--methods", "vanilla", "--seeds", "3", "--jobs", "2"]
    command += ["--set", "training.num_epochs=5000", "--out", str(out)]
    parent = subprocess.Popen([sys.executable, "-m", "advprop", *command])
    began = lambda: [run.parent.name for run in out.glob("runs/*/metrics.jsonl")]  # noqa: E731
    try:
        wait_until(lambda: len(began()) == 2)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) >= 2
    finally:  # a slow machine must not be left with its workers
        parent.kill()
        parent.wait()
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert len(began()) == 2
    for run in began():  # what they had trained is saved
        assert list((out / "runs" / run / "checkpoints").glob("step-*.pt"))


def wait_until(condition: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_method_that_cannot_be_trained_leaves_the_others(jobs: int, tmp_path: Path) -> None:
    """With 4 images a step, Fast AdvProp has none to attack."""
    settings = ["training.num_epochs=1", "training.batch_size=4", "data.num_train=40"]
    settings += ["training.warmup_epochs=0"]
    methods = ["fast", "vanilla"]
    found = compare(digits(), tmp_path, methods=methods, num_seeds=1, overrides=settings, jobs=jobs)
    assert [run["method"] for run in found["runs"]] == ["vanilla", "vanilla_equal_cost"]
    (failed,) = found["failed"]
    assert (failed["method"], failed["seed"]) == ("fast", 0)
    assert "batch" in failed["error"]
    assert [*read_results(tmp_path)["failed"]] == found["failed"]


def test_a_run_without_memory_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = parallel_jobs.train

    def train(config: RunConfig, folder: Path, **options: bool) -> object:
        if folder.name == "0":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(config, folder, **options)

    monkeypatch.setattr(parallel_jobs, "train", train)
    config = quick(digits()).with_method("vanilla")
    planned = [Job(method=f"m{n}", config=config, folder=tmp_path / str(n)) for n in range(2)]
    found = run_jobs(planned, tmp_path / "out", recipe="digits")
    assert [run["method"] for run in found["runs"]] == ["m1"]
    (failed,) = found["failed"]
    assert failed["method"] == "m0"
    assert "training.batch_size" in failed["error"]


def test_a_mistake_of_all_methods_ends_the_comparison_at_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = ["model.name=inception_v3", "model.options={}"]
    with pytest.raises(ValueError, match="inception_v3 cannot take images of 1 x 8 x 8"):
        compare(digits(), out, overrides=settings)
    assert not out.exists()


@pytest.mark.parametrize(
    ("signum", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_ends_the_comparison_with_its_own_code(
    signum: int, kind: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **__: object) -> None:
        raise InterruptedTraining("saved", signum)

    monkeypatch.setattr(parallel_jobs, "train", train)
    job = Job(method="m", config=quick(digits()).with_method("vanilla"), folder=tmp_path / "0")
    with pytest.raises(kind) as end:
        run_jobs([job], tmp_path / "out", recipe="digits")
    assert getattr(end.value, "code", 143) == 143


def test_weights_that_are_missing_are_named_before_anything_is_written(tmp_path: Path) -> None:
    out, weights = tmp_path / "out", f"model.checkpoint={tmp_path / 'gone.safetensors'}"
    with pytest.raises(FileNotFoundError, match=r"gone\.safetensors"):
        compare(quick(digits()), out, methods=["vanilla"], num_seeds=1, overrides=[weights])
    assert not out.exists()


@pytest.mark.parametrize("tested", [False, True])
def test_changed_data_are_told_of_runs_that_were_tested(
    tested: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick(digits()).with_method("vanilla")
    job = Job(method="m", config=config, folder=tmp_path / "0", tested=tested)
    run_jobs([job], tmp_path / "out", recipe="digits") if tested else train(config, job.folder)
    monkeypatch.setattr(parallel_jobs, "check_same_data", lambda *_: ["1 test image is new"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        parallel_jobs.check_jobs(tmp_path / "out", [job])
    told = [str(warning.message) for warning in caught]
    assert [text for text in told if "1 test image is new" in text] == told[:tested]


@pytest.mark.parametrize(
    "error",
    [RuntimeError("a fault of ours"), InUseError("busy"), UnreadableImageError("cannot read")],
)
def test_what_is_no_fault_of_a_method_ends_the_comparison(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(parallel_jobs, "train", train)
    job = Job(method="m", config=quick(digits()).with_method("vanilla"), folder=tmp_path / "0")
    with pytest.raises(type(error), match=str(error)):
        run_jobs([job], tmp_path / "out", recipe="digits")


def test_the_first_error_stands_for_all_where_no_run_can_be_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **__: object) -> None:
        raise ValueError("no run can")

    monkeypatch.setattr(parallel_jobs, "train", train)
    job = Job(method="m", config=quick(digits()).with_method("vanilla"), folder=tmp_path / "0")
    with pytest.raises(ValueError, match="no run can"):
        run_jobs([job], tmp_path / "out", recipe="digits")


@pytest.mark.parametrize(
    ("asked", "found"), [(None, 3), ("", 3), ("2", 2), ("2,1", 2), ("8", 3), ("0", 3), ("no", 3)]
)
def test_threads_are_those_that_this_process_may_use(
    asked: str | None, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if asked is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert parallel_jobs.usable_threads() == found


@pytest.mark.parametrize(("devices", "taken"), [(0, []), (1, []), (3, [0, 1, 2, 0])])
def test_processes_take_the_devices_in_turn(
    devices: int, taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: devices)
    monkeypatch.setattr(torch.accelerator, "set_device_index", found.append)
    for number in range(4):
        parallel_jobs._take_device(number)
    assert found == taken
