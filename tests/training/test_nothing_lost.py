"""Rollback, locks, changed data, full disks, unwritable folders: nothing is lost or overwritten."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from run_folders import log_of
from torch import nn

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.files.json_files import in_use
from advprop.methods.step import StepMetrics
from advprop.methods.vanilla import Vanilla
from advprop.models.build import build_model
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.folder import load_run
from advprop.training.checkpoint import Checkpoints, read_checkpoint
from advprop.training.stopping import NotFiniteError, Watch, error_of_run
from advprop.training.trainer import Trainer


def quick(*settings: str) -> RunConfig:
    base = ["training.num_epochs=2", "data.num_train=60", "training.batch_size=20"]
    return apply_overrides(digits().with_method("vanilla"), [*base, *settings])


def poison(monkeypatch: pytest.MonkeyPatch, *, step: int, times: int) -> None:
    """Let the loss of `step` be infinite in its first `times` tries."""
    whole, met = Vanilla.step, []

    def poisoned(self: Vanilla, model: object, batch: object, context: object) -> StepMetrics:
        metrics = whole(self, model, batch, context)  # type: ignore[arg-type]
        if context.step == step and len(met) < times:  # type: ignore[attr-defined]
            met.append(step)
            return StepMetrics(loss=torch.tensor(torch.inf), kinds=metrics.kinds)
        return metrics

    monkeypatch.setattr(Vanilla, "step", poisoned)


@pytest.fixture(params=[False, True], ids=["at once", "a step later"])
def read(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are looked at as on a CPU, and as on a GPU."""

    def watch(self: Watch, *arguments: object) -> None:
        whole(self, *arguments)  # type: ignore[arg-type]
        self.reads_late = request.param

    whole = Watch.__init__
    monkeypatch.setattr(Watch, "__init__", watch)


@pytest.mark.usefixtures("read")
def test_a_loss_that_is_not_finite_goes_back_and_halves_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick(
        "training.not_finite=rollback", "training.schedule=constant", "training.warmup_epochs=0"
    )
    poison(monkeypatch, step=4, times=2)
    with pytest.warns(UserWarning, match="went back to step 3") as caught:
        train(config, tmp_path / "run", quiet=True)
    assert len(caught) == 2
    assert [entry["epoch"] for entry in log_of(tmp_path / "run")] == [1, 2]
    rate = config.training.learning_rate
    assert [e["learning_rate"] for e in log_of(tmp_path / "run")] == [rate, rate / 4]
    newest = Checkpoints(tmp_path / "run" / "checkpoints").load_newest()
    assert newest is not None
    assert newest["position"]["rollbacks"] == 2


@pytest.mark.usefixtures("read")
def test_going_back_works_in_the_first_epoch_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, step=1, times=6)
    with (
        pytest.warns(UserWarning, match="went back to step 0"),
        pytest.raises(NotFiniteError, match="epoch 1, step 2"),
    ):
        train(quick("training.not_finite=rollback"), tmp_path / "run", quiet=True)


@pytest.mark.usefixtures("read")
@pytest.mark.parametrize("every", [1, None], ids=["each step", "each epoch"])
def test_weights_that_are_not_finite_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None
) -> None:
    """A gradient may overflow where the loss does not: the next step would tell, too late."""
    whole = Vanilla.step

    def overflowing(self: Vanilla, model: nn.Module, batch: object, context: object) -> StepMetrics:
        metrics = whole(self, model, batch, context)  # type: ignore[arg-type]
        if context.step == 2:  # type: ignore[attr-defined]
            next(model.parameters()).grad.fill_(torch.inf)  # type: ignore[union-attr]
        return metrics

    monkeypatch.setattr(Vanilla, "step", overflowing)
    often = [] if every is None else [f"training.checkpoint_every_steps={every}"]
    with pytest.raises(NotFiniteError, match="weights are not finite after step 3"):
        train(quick("training.num_epochs=1", *often), tmp_path / "run", quiet=True)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert not checkpoints.best.exists()
    assert log_of(tmp_path / "run") == []
    newest = checkpoints.load_newest()
    if every is None:
        assert newest is None
        return
    assert newest is not None
    assert newest["position"]["step"] == 2
    assert all(tensor.isfinite().all() for tensor in newest["model"].values())


@pytest.mark.usefixtures("read")
@pytest.mark.parametrize("step", [1, 2], ids=["in between", "the epoch's last"])
@pytest.mark.parametrize("every", [1, None], ids=["each step", "each epoch"])
def test_the_step_of_a_loss_that_is_not_finite_is_told_and_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int | None, step: int
) -> None:
    whole = Vanilla.step

    def poisoned(self: Vanilla, model: nn.Module, batch: object, context: object) -> StepMetrics:
        metrics = whole(self, model, batch, context)  # type: ignore[arg-type]
        if context.step != step:  # type: ignore[attr-defined]
            return metrics
        next(model.parameters()).grad.fill_(torch.nan)  # type: ignore[union-attr]
        return StepMetrics(loss=torch.tensor(torch.nan), kinds=metrics.kinds)

    monkeypatch.setattr(Vanilla, "step", poisoned)
    often = [] if every is None else [f"training.checkpoint_every_steps={every}"]
    with pytest.raises(NotFiniteError, match=f"loss became nan in epoch 1, step {step + 1}:"):
        train(quick("training.num_epochs=1", *often), tmp_path / "run", quiet=True)
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    assert not checkpoints.best.exists()
    newest = checkpoints.load_newest()
    assert (None if newest is None else newest["position"]["step"]) == (every and step)


def test_checkpoints_come_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    whole = Trainer.save
    monkeypatch.setattr(
        Trainer, "save", lambda self: (saved.append(self.position.step), whole(self))[1]
    )
    now = iter(range(0, 10_000, 20))  # each look at the clock is 20 seconds later
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    train(quick("training.checkpoint_every_minutes=1"), tmp_path / "often", quiet=True)
    often = list(saved)
    saved.clear()
    train(quick("training.checkpoint_every_minutes=1000"), tmp_path / "rarely", quiet=True)
    assert saved == [3, 6]
    assert len(often) > 2
    assert {3, 6} <= set(often)


def test_the_last_checkpoints_are_kept(tmp_path: Path) -> None:
    config = quick("training.keep_checkpoints=4", "training.checkpoint_every_steps=1")
    train(config, tmp_path / "run", quiet=True)
    names = [path.name for path in Checkpoints(tmp_path / "run" / "checkpoints").by_step()]
    assert names == [f"step-00000000{step}.pt" for step in (6, 5, 4, 3)]


def test_validation_that_fails_loses_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(quick(), tmp_path / "whole", quiet=True)
    with monkeypatch.context() as patch:
        patch.setattr("advprop.runs.trainer.evaluate_clean", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(quick(), tmp_path / "run", quiet=True)
    newest = Checkpoints(tmp_path / "run" / "checkpoints").load_newest()
    assert newest is not None
    assert newest["position"]["step"] == 3
    train(quick(), tmp_path / "run", resume=True, quiet=True)
    one, other = (load_run(tmp_path / name).model.state_dict() for name in ("whole", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_two_processes_do_not_train_in_one_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD.format(folder=str(tmp_path))],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="another process is training here"), in_use(tmp_path):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    with in_use(tmp_path):  # a lock that a killed process left blocks nobody
        pass


_HOLD = """
import fcntl, time
file = open("{folder}/.lock", "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(20):
        for name, shade in (("blue", 40), ("red", 200)):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            picture = Image.new("L", (20, 20), shade + number)
            picture.save(tmp_path / "photos" / name / f"{number:02}.png")
    return tmp_path / "photos"


def of_folder(root: Path) -> RunConfig:
    settings = [f"data.root={root}", "data.image_size=16", "data.channels=1", "data.num_train=none"]
    settings += ["training.num_epochs=1", "training.batch_size=4"]
    return apply_overrides(digits().with_method("vanilla"), ["data.kind=folder", *settings])


def test_other_data_are_refused_on_resume(tmp_path: Path, photos: Path) -> None:
    config = of_folder(photos)
    train(config, tmp_path / "run", quiet=True)
    (tmp_path / "run" / "result.json").unlink()
    for number in range(8):
        (photos / "red" / f"extra{number}.png").write_bytes(
            (photos / "red" / "00.png").read_bytes()
        )
    with pytest.raises(ValueError, match="the data have changed since the run began"):
        train(config, tmp_path / "run", resume=True, quiet=True)


def test_a_run_goes_on_with_other_workers_and_without_the_weights_it_began_from(
    tmp_path: Path, photos: Path
) -> None:
    first = build_model("resnet10t", num_classes=2, in_chans=1, mean=[0.5], std=[0.5])
    start = tmp_path / "start.pt"
    torch.save(first.model.state_dict(), start)
    settings = ("model.name=resnet10t", f"model.checkpoint={start}", "model.options={}")
    config = apply_overrides(of_folder(photos), [*settings, "training.num_epochs=2"])
    train(config, tmp_path / "whole", quiet=True)
    train(config, tmp_path / "run", quiet=True)
    # back to the end of the first epoch
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.by_step()[0].unlink()
    (tmp_path / "run" / "result.json").unlink()
    start.unlink()
    others = (
        "training.num_workers=1",
        "training.checkpoint_every_steps=1",
        "training.keep_checkpoints=3",
        "data.max_unreadable=0.1",
        "training.not_finite=rollback",
    )
    train(apply_overrides(config, others), tmp_path / "run", resume=True, quiet=True)
    one, other = (load_run(tmp_path / name).model.state_dict() for name in ("whole", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_is_loaded_without_its_data(tmp_path: Path, photos: Path) -> None:
    config = of_folder(photos)
    train(config, tmp_path / "run", quiet=True)
    photos.rename(tmp_path / "elsewhere")
    run = load_run(tmp_path / "run")
    assert run.preprocessing.image_shape == (1, 16, 16)
    assert run.class_names == ("blue", "red")


def test_a_full_disk_ends_with_a_message_and_whole_checkpoints(tmp_path: Path) -> None:
    """The real thing in a process whose files may not grow beyond the first checkpoint's size."""
    train(quick("training.num_epochs=1"), tmp_path / "run", quiet=True)
    (tmp_path / "run" / "result.json").unlink()
    config = quick("training.num_epochs=1")
    settings = tmp_path / "config.json"
    settings.write_text(config.model_dump_json())
    checkpoints = Checkpoints(tmp_path / "full" / "checkpoints")

    def small_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    ended = subprocess.run(
        [sys.executable, "-m", "advprop", "train", str(settings), "--out", str(tmp_path / "full")],
        preexec_fn=small_files,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "could not be written" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert not checkpoints.by_step()
    assert not list((tmp_path / "full" / "checkpoints").glob(".*"))  # nothing half-written is left
    train(config, tmp_path / "full", resume=True, quiet=True)
    read_checkpoint(checkpoints.by_step()[0])


@pytest.mark.parametrize("kind", [NotFiniteError, ValueError])
def test_the_error_of_a_run_does_not_hold_its_memory(kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        raise kind("the reason")
    copy = error_of_run(caught.value)
    assert (type(copy), str(copy)) == (kind, "the reason")
    assert copy is not None
    assert copy.__traceback__ is None
