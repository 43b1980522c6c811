"""What each training setting does to a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from run_folders import log_of
from torch import nn

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.folder import load_run
from advprop.shapes import Batch
from advprop.training.checkpoint import Checkpoints, read_checkpoint
from advprop.training.settings import TrainingSettings


def quick(*settings: str) -> RunConfig:
    base = ["training.num_epochs=4", "data.num_train=100", "training.batch_size=20"]
    return apply_overrides(digits().with_method("vanilla"), [*base, *settings])


def test_the_rate_warms_up_and_falls_as_a_cosine(tmp_path: Path) -> None:
    train(quick("training.learning_rate=0.2", "training.warmup_epochs=2"), tmp_path, quiet=True)
    rates = [entry["learning_rate"] for entry in log_of(tmp_path)]
    # of the last of five steps in each epoch: step 4 of 10 to warm up, then steps 14 and 19 of 20
    warming = 0.02 + 4 * (0.2 - 0.02) / 10
    assert rates[0] == pytest.approx(warming)
    for rate, step in zip(rates[2:], (14, 19), strict=True):
        assert rate == pytest.approx(0.1 * (1 + math.cos(math.pi * step / 20)))


def test_a_constant_rate_stays(tmp_path: Path) -> None:
    config = quick("training.schedule=constant", "training.warmup_epochs=1")
    train(config, tmp_path, quiet=True)
    assert [entry["learning_rate"] for entry in log_of(tmp_path)][1:] == [0.2, 0.2, 0.2]


def test_clipping_bounds_the_first_step(tmp_path: Path) -> None:
    moves = {}
    for clip in ("none", "0.01"):
        config = quick(
            "training.num_epochs=1",
            "training.batch_size=100",
            "training.weight_decay=0",
            "training.optimizer=momentum",
            "training.schedule=constant",
            "training.warmup_epochs=0",
            f"training.gradient_clip={clip}",
        )
        folder = tmp_path / clip
        train(config, folder, quiet=True)
        torch.manual_seed(0)
        start = config.model.build(num_classes=10, image_shape=(1, 8, 8))
        end = load_run(folder).model
        squares = [
            (a - b).square().sum()
            for a, b in zip(start.parameters(), end.parameters(), strict=True)
        ]
        moves[clip] = torch.stack(squares).sum().sqrt().item()
    assert moves["0.01"] == pytest.approx(0.2 * 0.01, rel=1e-3)  # rate times the clipped length
    assert moves["none"] > 2 * moves["0.01"]


def test_an_average_of_the_weights_is_kept_tested_and_loaded(tmp_path: Path) -> None:
    train(quick("training.ema_decay=0.9"), tmp_path, quiet=True)
    stream = torch.get_rng_state()
    default, last = load_run(tmp_path), load_run(tmp_path, weights="last")
    assert torch.equal(torch.get_rng_state(), stream)
    assert (default.weights, last.weights) == ("ema", "last")
    different = [
        not torch.equal(a, b)
        for a, b in zip(default.model.parameters(), last.model.parameters(), strict=True)
    ]
    assert all(different)


def test_best_is_the_epoch_that_was_best_on_validation(tmp_path: Path) -> None:
    # a rate far too large at the end, so that the last epoch is not the best one
    config = quick("training.learning_rate=3", "training.warmup_epochs=4")
    train(config, tmp_path, quiet=True)
    accuracies = [entry["validation_accuracy"] for entry in log_of(tmp_path)]
    best = read_checkpoint(Checkpoints(tmp_path / "checkpoints").best)["position"]
    assert best["epoch"] == accuracies.index(max(accuracies)) + 1
    assert best["best_validation_accuracy"] == max(accuracies)
    assert load_run(tmp_path, weights="best").weights == "best"


def test_two_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    train(quick("training.checkpoint_every_steps=2"), tmp_path, quiet=True)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == ["best.pt", "step-000000018.pt", "step-000000020.pt"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_epochs": 0}, "num_epochs 0: give a number of at least 1"),
        ({"warmup_epochs": 3.0}, "warmup_epochs 3 exceeds num_epochs 2"),
        ({"label_smoothing": 1.0}, "label_smoothing 1.0"),
        ({"gradient_clip": 0.0}, "gradient_clip 0.0"),
        ({"ema_decay": 1.0}, "ema_decay 1.0"),
        ({"learning_rate": math.inf}, "learning_rate inf"),
        ({"checkpoint_every_steps": 0}, "checkpoint_every_steps 0"),
    ],
)
def test_settings_that_cannot_train_are_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSettings(**{"num_epochs": 2, "batch_size": 10, **setting})


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_validation_has_the_precision_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    seen = []

    def evaluated(model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        seen.append(model(next(iter(batches)).images).dtype)
        return {"clean_accuracy": 0.5, "num_images": 2}

    monkeypatch.setattr("advprop.runs.trainer.evaluate_clean", evaluated)
    # the model itself is prepared by accelerate, its average is not
    settings = ["training.ema_decay=0.9", f"training.mixed_precision={precision}"]
    train(quick("training.num_epochs=1", *settings), tmp_path, quiet=True)
    assert seen == [torch.bfloat16 if precision == "bf16" else torch.float32]
