"""What the trainer adds to the work itself: an epoch of `Trainer` against a bare loop, in CPU time.

    python benchmarks/trainer_overhead.py [--quick]

Both train the same model with the same method, optimiser and batches in memory, on one thread, in
turn. The bare loop zeroes gradients, calls `method.forward_backward` and steps; the trainer does
what it does in every run: schedule, seeds, random streams for each image, a look at the loss,
metrics, progress, checkpoints that are not due. Validation and the writing of files are left out.
The target is 3 % more; `small_resnet` on MNIST, whose steps are far shorter than any in practice,
is the hard case.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from measuring import Row, Times, interleaved
from showing import show

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.config.run import ModelConfig
from advprop.data.preprocessing import Preprocessing
from advprop.data.splits import ArraySplit, ImageData
from advprop.recipes.builtin import mnist5k
from advprop.runs.trainer import build_trainer
from advprop.shapes import Batch
from advprop.training.engine import build_accelerator, memory_format
from advprop.training.position import Position
from advprop.training.progress import TrainingProgress
from advprop.training.state import EpochTotals
from advprop.training.trainer import Trainer

TARGET = 1.03
BARE, TRAINER = "a bare loop", "the trainer"
METHODS = ("vanilla", "advprop")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A net, its images, how many batches make an epoch, and how many epochs are measured."""

    config: RunConfig
    data: ImageData
    batches: int
    repeats: int


def resnet18() -> Case:
    """ResNet-18 on 64 pixels, 32 images a batch: about half a second a pass."""
    config = apply_overrides(mnist5k(), ["training.batch_size=32", "training.num_epochs=1"])
    config = config.model_copy(update={"model": ModelConfig(name="resnet18")})
    pixels = torch.randint(256, (64, 3, 64, 64), dtype=torch.uint8)
    split = ArraySplit(pixels=pixels, labels=torch.arange(64) % 10)
    data = ImageData(
        name="noise",
        class_names=tuple("0123456789"),
        preprocessing=Preprocessing(image_shape=(3, 64, 64)),
        train=split,
        validation=split,
        test=None,
    )
    return Case(config=config, data=data, batches=2, repeats=7)


def mnist() -> Case:
    """The recipe `mnist5k` as it is: a step of vanilla takes some 20 ms."""
    config = apply_overrides(mnist5k(), ["training.num_epochs=1"])
    return Case(config=config, data=config.data.load(0), batches=5, repeats=21)


def bare_epoch(trainer: Trainer, batches: list[Batch]) -> None:
    """The loop that the trainer is measured against."""
    model, optimizer = trainer.plain_model.train(), trainer.schedule.optimizer
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        trainer.method.forward_backward(model, batch)
        optimizer.step()


def trainer_epoch(trainer: Trainer, progress: TrainingProgress) -> None:
    """One epoch from the beginning of a run."""
    trainer.state.position, trainer.state.totals = Position(), EpochTotals()
    trainer.train_epoch(lambda: None, progress)


def measured(case: Case, method: str, repeats: int) -> Times:
    """An epoch of the bare loop and of the trainer, in turn."""
    config = case.config.with_method(method)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, case.data, Path(folder), build_accelerator(config.training))
    layout = memory_format(config.training)
    made = list(trainer.batches(0, 0))[: case.batches]
    batches = [batch.to(torch.device("cpu"), memory_format=layout) for batch in made]
    trainer.batches = lambda epoch, first: batches
    actions = {
        BARE: partial(bare_epoch, trainer, batches),
        TRAINER: partial(trainer_epoch, trainer, trainer.progress(quiet=True)),
    }
    return interleaved(actions, repeats=repeats)


def measure(quick: bool) -> Iterator[Row]:
    cases = {"small_resnet, mnist5k": mnist()}
    if not quick:
        cases["resnet18, 64 pixels"] = resnet18()
    for name, case in cases.items():
        for method in METHODS:
            times, of = measured(case, method, 5 if quick else case.repeats), f"{name}, {method}"
            yield times.absolute(BARE, "a step", case=of, scale=1e3 / case.batches, unit="ms")
            yield times.ratio(TRAINER, BARE, case=of, target=TARGET)


if __name__ == "__main__":
    show(measure)
