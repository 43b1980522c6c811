"""Runs side by side that `compare` itself would not choose."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from advprop.auxiliary.norm import AuxiliaryNorm
from advprop.comparison import run_jobs
from advprop.comparison_plan import Job
from advprop.config import RunConfig
from advprop.data.builtin import load_builtin
from advprop.recipes.builtin import digits
from advprop.run_folder import build_run_model


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
    wait_until(lambda: len(began()) == 2)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    assert len(children) >= 2
    parent.kill()
    parent.wait()
    wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in children))
    assert len(began()) == 2
    for run in began():  # what they had trained is saved
        assert list((out / "runs" / run / "checkpoints").glob("step-*.pt"))


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
