"""Resumed equals uninterrupted, bit for bit; what is damaged is passed over; signals save."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from run_folders import cut_off, log_of

from advprop.config import RunConfig
from advprop.config.methods import METHODS
from advprop.config.overrides import apply_overrides
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.folder import load_run
from advprop.training.checkpoint import Checkpoints, read_checkpoint
from advprop.training.stopping import InterruptedTraining, NotFiniteError
from advprop.training.trainer import Trainer


def quick(method: str = "advprop", *settings: str) -> RunConfig:
    base = [
        "training.num_epochs=3",
        "data.num_train=100",
        "training.batch_size=20",
        "training.checkpoint_every_steps=2",
        "model.options.drop_rate=0.2",
        "model.options.width=8",
    ]
    if method == "maxup":  # which has nothing to choose from without
        base.append('data.augmentation={"scale": [0.5, 1], "hflip": 0}')
    return apply_overrides(digits().with_method(method), [*base, *settings])


def newest(folder: Path) -> dict[str, object]:
    return read_checkpoint(Checkpoints(folder / "checkpoints").by_step()[0])


def assert_equal_runs(one: Path, other: Path) -> None:
    states = newest(one), newest(other)
    for key in ("model", "ema"):
        if states[0][key] is None:
            assert states[1][key] is None
            continue
        assert states[0][key].keys() == states[1][key].keys()
        for name, tensor in states[0][key].items():
            assert torch.equal(tensor, states[1][key][name]), name
    logs = [
        [
            {k: v for k, v in entry.items() if k not in ("seconds", "images_per_second")}
            for entry in log_of(folder)
        ]
        for folder in (one, other)
    ]
    assert logs[0] == logs[1]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [3, 5])
def test_resumed_equals_uninterrupted(method: str, steps: int, tmp_path: Path) -> None:
    config = quick(method, "training.ema_decay=0.9")
    train(config, tmp_path / "whole", quiet=True)
    cut_off(config, tmp_path / "cut", after=steps)
    resumed = train(config, tmp_path / "cut", resume=True, quiet=True)
    assert resumed["epochs"] == 3
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize("steps", [1, 7, 12])
def test_what_is_carried_is_resumed_exactly_through_crops_and_loader_workers(
    steps: int, tmp_path: Path
) -> None:
    """Killed before the first checkpoint, and in the middle of later epochs."""
    photographed(tmp_path / "photos")
    config = quick(
        "advprop_lean",
        "data.kind=folder",
        f"data.root={tmp_path / 'photos'}",
        *("data.image_size=10", "data.channels=1", "data.num_train=none"),
        *("training.batch_size=8", "training.num_workers=2", "training.num_epochs=4"),
        "method.attacked_fraction=0.5",
    )
    train(config, tmp_path / "whole", quiet=True)
    cut_off(config, tmp_path / "cut", after=steps)
    assert (tmp_path / "cut" / "kept").is_dir()
    train(config, tmp_path / "cut", resume=True, quiet=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")
    assert not (tmp_path / "cut" / "kept").exists()  # of no use to a finished run, and large


def photographed(root: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(60):
        folder = root / ("one", "two")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (14, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


def test_a_checkpoint_from_too_far_back_says_that_perturbations_are_lost(tmp_path: Path) -> None:
    config = quick(
        "advprop_lean",
        "training.checkpoint_every_steps=none",
        "training.num_epochs=5",
        "method.attacked_fraction=0.8",
    )
    cut_off(config, tmp_path / "cut", after=22)  # in epoch 5, of 5 steps each
    newest_first = Checkpoints(tmp_path / "cut" / "checkpoints").by_step()
    assert [path.name for path in newest_first] == ["step-000000020.pt", "step-000000015.pt"]
    newest_first[0].write_bytes(b"damaged")
    with (
        pytest.warns(UserWarning, match="trying the one before"),
        pytest.warns(UserWarning, match="epoch 4, further back than perturbations are kept"),
    ):
        train(config, tmp_path / "cut", resume=True, quiet=True)


def test_perturbations_that_are_gone_are_not_made_up(tmp_path: Path) -> None:
    config = quick("advprop_lean")
    cut_off(config, tmp_path / "cut", after=7)
    (tmp_path / "cut" / "kept" / "perturbations.bin").unlink()
    with pytest.raises(FileNotFoundError, match="perturbations that training goes on from are gon"):
        train(config, tmp_path / "cut", resume=True, quiet=True)


def test_resume_starts_where_there_is_nothing_yet(tmp_path: Path) -> None:
    train(quick(), tmp_path / "run", resume=True, quiet=True)
    assert load_run(tmp_path / "run").result["epochs"] == 3


def test_a_truncated_checkpoint_is_passed_over(tmp_path: Path) -> None:
    config = quick()
    train(config, tmp_path / "whole", quiet=True)
    cut_off(config, tmp_path / "cut", after=9)
    last = Checkpoints(tmp_path / "cut" / "checkpoints").by_step()[0]
    last.write_bytes(last.read_bytes()[:-200])
    with pytest.warns(UserWarning, match="trying the one before"):
        train(config, tmp_path / "cut", resume=True, quiet=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_a_failed_write_leaves_the_previous_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"model": {"a": torch.ones(3)}})

    class Unwritable:
        def __reduce__(self) -> str:
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        checkpoints.save(2, {"model": {"a": Unwritable()}})
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.pt"]
    assert torch.equal(checkpoints.load_newest()["model"]["a"], torch.ones(3))


def test_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save({"format": 1, "model": Payload()}, tmp_path / "step-000000001.pt")
    with pytest.raises(ValueError, match="damaged, or no checkpoint"):
        read_checkpoint(tmp_path / "step-000000001.pt")
    assert not (tmp_path / "owned").exists()


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    config = quick("vanilla", "training.learning_rate=1e9", "training.warmup_epochs=0")
    with pytest.raises(NotFiniteError, match=r"lower training\.learning_rate"):
        train(config, tmp_path / "run", quiet=True)


def test_an_interrupt_saves_at_the_step_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = quick("advprop", "training.checkpoint_every_steps=none")
    train(config, tmp_path / "whole", quiet=True)
    whole_step = Trainer.train_step

    def signalled(self: Trainer, *arguments: object) -> object:
        if self.position.step == 6:
            signal.raise_signal(signal.SIGTERM)
        return whole_step(self, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", signalled)
        with pytest.raises(InterruptedTraining, match="after step 7 of 15; saved") as ended:
            train(config, tmp_path / "cut", quiet=True)
    assert ended.value.exit_code == 143
    train(config, tmp_path / "cut", resume=True, quiet=True)
    assert_equal_runs(tmp_path / "whole", tmp_path / "cut")


def test_how_a_run_will_be_tested_may_change_until_it_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, folder = quick("vanilla"), tmp_path / "run"
    other = apply_overrides(config, ["evaluation.restarts=7"])

    def stopped(self: Trainer, *_: object) -> None:
        raise InterruptedTraining("stopped", signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_step", stopped)
        with pytest.raises(InterruptedTraining):
            train(config, folder, quiet=True)
    train(other, folder, resume=True, quiet=True)
    assert load_run(folder).config == other
    with pytest.raises(ValueError, match=r"evaluation\.restarts: saved 7, wanted 1"):
        train(config, folder, resume=True, quiet=True)
