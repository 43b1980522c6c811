"""Alarms, trackers, progress: what a run shows and warns of."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from run_folders import log_of

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.methods.step import KindMetrics, StepMetrics
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.trainer import unused_branches
from advprop.training.alarms import alarms
from advprop.training.engine import build_accelerator
from advprop.training.progress import TrainingProgress
from advprop.training.state import EpochTotals
from advprop.training.trackers import begin_trackers, check_trackers, flat_numbers


def quick(method: str, *settings: str) -> RunConfig:
    base = ["training.num_epochs=2", "data.num_train=60", "training.batch_size=20"]
    return apply_overrides(digits().with_method(method), [*base, *settings])


def means(clean: float, adversarial: float, perturbation: float = 0.01) -> dict[str, object]:
    return {
        "clean": {"loss": 1.0, "accuracy": clean},
        "adversarial": {"loss": 1.0, "accuracy": adversarial},
        "perturbation": perturbation,
    }


def test_more_accuracy_on_adversarial_images_is_an_alarm() -> None:
    (alarm,) = alarms(means(0.733, 0.880), num_images=10_000)
    assert "adversarial images (88.0%) exceeds that on clean ones (73.3%)" in alarm
    assert not alarms(means(0.733, 0.745), num_images=10_000)  # within two points
    assert not alarms(means(0.5, 0.6), num_images=60)  # within chance
    assert not alarms(means(0.1, 0.2), num_images=250)  # half of 500 digits each, first epoch
    assert not alarms(means(0.88, 0.733), num_images=10_000)


def test_an_attack_that_does_nothing_is_an_alarm() -> None:
    (alarm,) = alarms(means(0.7, 0.6, perturbation=0.0), num_images=100)
    assert "the attack does nothing" in alarm


def test_a_run_warns_and_logs_its_alarms(tmp_path: Path) -> None:
    config = quick("advprop", "method.attack.threat_model.epsilon=0")
    with pytest.warns(UserWarning, match="epoch .: (the mean perturbation is|branch)"):
        train(config, tmp_path / "run", quiet=True)
    assert all("does nothing" in entry["alarms"][0] for entry in log_of(tmp_path / "run"))


def test_a_branch_that_nothing_went_through_is_an_alarm() -> None:
    torch.manual_seed(0)
    model = add_auxiliary_norms(
        digits().model.build(num_classes=10, image_shape=(1, 8, 8)), ("adversarial", "noise")
    )
    both = unused_branches(model)
    assert [text[: text.index(" does")] for text in both] == [
        'branch "adversarial"',
        'branch "noise"',
    ]
    for name, buffer in model.named_buffers():
        if "branches.noise" in name and name.endswith("running_mean"):
            buffer += 0.1
    assert len(unused_branches(model)) == 1
    assert not unused_branches(torch.nn.Linear(2, 2))


def test_tensorboard_shows_each_epoch_once_after_a_resume(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(quick("advprop"), tmp_path / "run", quiet=True, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"train/clean/loss", "train/adversarial/accuracy", "validation_accuracy"} <= set(tags)
    assert "step/clean/loss" in tags
    assert [event.step for event in events.Scalars("train/clean/loss")] == [3, 6]
    again = build_accelerator(quick("vanilla").training)
    begin_trackers(again, tmp_path / "run", {}, after=3, tensorboard=True)
    again.log({"train/clean/loss": 0.5}, step=6)
    again.end_training()
    events.Reload()
    assert [event.step for event in events.Scalars("train/clean/loss")] == [3, 6]
    assert events.Scalars("train/clean/loss")[-1].value == 0.5


@pytest.mark.parametrize(
    ("given", "entity"), [("project", None), ("team/project", "team")], ids=["project", "team"]
)
def test_weights_and_biases_offline(
    given: str, entity: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logged: list[tuple[int, dict[str, float]]] = []
    begun: list[dict[str, object]] = []

    class Run:
        def log(self, values: dict[str, float], *, step: int) -> None:
            logged.append((step, values))

        def finish(self) -> None:
            logged.append((-1, {}))

    class Module:
        Error = RuntimeError

        @staticmethod
        def login() -> bool:
            return True

        @staticmethod
        def init(**options: object) -> Run:
            begun.append(options)
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Module)
    train(quick("vanilla"), tmp_path / "run", quiet=True, wandb=given)
    assert (begun[0]["entity"], begun[0]["project"]) == (entity, "project")
    assert begun[0]["config"]["method"] == {"kind": "vanilla"}  # type: ignore[index]
    assert [step for step, values in logged if "validation_accuracy" in values] == [3, 6]
    assert logged[-1][0] == -1


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ImportError, match=r'pip install "advprop\[wandb\]"'):
        train(quick("vanilla"), tmp_path / "run", quiet=True, wandb="project")
    with pytest.raises(ImportError, match=r'pip install "advprop\[tensorboard\]"'):
        train(quick("vanilla"), tmp_path / "run", quiet=True, tensorboard=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("project", "message"),
    [
        ("a/b/c", r'--wandb "a/b/c": give PROJECT or TEAM/PROJECT'),
        *(
            (bad, "1 to 128 characters")
            for bad in (" ", "/", "team/", "/project", "a/b:c", "x" * 129)
        ),
        ("mine", r"no key: log in by .* WANDB_MODE=offline .* or leave --wandb out"),
    ],
)
def test_what_cannot_be_logged_to_is_said_before_a_run_begins(
    project: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Module:
        class Error(Exception):
            """The package's own."""

        @classmethod
        def login(cls) -> bool:
            raise cls.Error("no key")

    monkeypatch.setitem(sys.modules, "wandb", Module)
    with pytest.raises(ValueError, match=message):
        train(quick("vanilla"), tmp_path / "run", quiet=True, wandb=project)
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(False, "mine")


def test_numbers_of_nested_entries_are_named_by_their_path() -> None:
    entry = {"step": 3, "train": {"clean": {"loss": 0.5}}, "perturbation": None, "alarms": ["x"]}
    assert dict(flat_numbers(entry)) == {"step": 3.0, "train/clean/loss": 0.5}


ENTRY = {
    "epoch": 2,
    "step": 10,
    "passes": 14.0,
    "train": {"clean": {"loss": 0.5, "accuracy": 0.9}},
    "perturbation": 1 / 255,
    "validation_accuracy": 0.8,
    "images_per_second": 1234.5,
}


def shown(*, is_terminal: bool, quiet: bool = False) -> str:
    progress = TrainingProgress(
        total_steps=20, num_epochs=4, done=0, batch_size=10, passes_per_image=7.0, quiet=quiet
    )
    output = io.StringIO()
    progress.console = Console(file=output, force_terminal=is_terminal, quiet=quiet, width=200)
    with progress:
        progress.step(step=1, epoch=0, totals=EpochTotals())
        progress.epoch(ENTRY)
    return output.getvalue()


def test_without_a_terminal_an_epoch_is_a_line_with_its_cost() -> None:
    line = shown(is_terminal=False)
    assert line.startswith(
        "epoch 2  clean 0.500 90.0%  perturbation 1.00/255  validation 80.0%  1,234 images/s  "
        "cost 14 passes (vanilla 2)"
    )
    assert "\x1b" not in line


def test_quiet_shows_nothing() -> None:
    assert shown(is_terminal=False, quiet=True) == ""


def test_a_narrow_terminal_shows_all_numbers_and_each_epoch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = io.StringIO()
    monkeypatch.setattr(
        "advprop.training.progress.Console",
        lambda **options: Console(file=output, force_terminal=True, width=80, color_system=None),
    )
    totals = EpochTotals()
    kinds = {
        kind: KindMetrics(loss=torch.tensor(loss), metrics={"accuracy": torch.tensor(accuracy)})
        for kind, loss, accuracy in (("clean", 2.5, 0.25), ("adversarial", 2.75, 0.125))
    }
    perturbation = torch.tensor(2 / 255)
    totals.add(StepMetrics(loss=torch.tensor(5.0), kinds=kinds, perturbation=perturbation))
    progress = TrainingProgress(
        total_steps=100_000,
        num_epochs=350,
        done=0,
        batch_size=64,
        passes_per_image=3.0,
        quiet=False,
    )
    with progress:
        monkeypatch.setattr("advprop.training.progress._REFRESH_SECONDS", 0.0)
        progress.step(step=25_000, epoch=87, totals=totals)
        progress.epoch(ENTRY)
    text = output.getvalue()
    assert "epoch 2  clean 0.500 90.0%" in text  # the epoch's line stays above the bar
    bar = next(line for line in text.split("\n") if "25000/100000" in line)
    assert "epoch 88" in bar
    assert "…" not in text  # nothing was cut off
    words = " ".join(text.split())
    assert "clean 2.500 25.0% adversarial 2.750 12.5% perturbation 2.00/255" in words
    assert "cost 262.5 passes (vanilla 87.5)" in words


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (1000, ["about 0:16:37 on this machine for the remaining 997 steps, without validation"]),
        (50, []),  # the run is over before anybody has read it
    ],
    ids=["long", "short"],
)
def test_the_first_steps_tell_once_how_long_a_long_run_will_take(
    monkeypatch: pytest.MonkeyPatch, total: int, expected: list[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr("advprop.training.progress.time", SimpleNamespace(monotonic=lambda: now[0]))
    progress = TrainingProgress(
        total_steps=total, num_epochs=4, done=0, batch_size=10, passes_per_image=7.0, quiet=False
    )
    output = io.StringIO()
    progress.console = Console(file=output, force_terminal=False, width=200)
    with progress:
        for step, at in enumerate((30.0, 31.0, 32.0, 33.0, 34.0), start=1):  # the first is slow
            now[0] = at
            progress.step(step=step, epoch=0, totals=EpochTotals())
    assert output.getvalue().splitlines() == expected
