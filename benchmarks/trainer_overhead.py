"""What the trainer adds to the work itself: an epoch of `Trainer` against a bare loop, in CPU time.

    OMP_NUM_THREADS=1 python benchmarks/trainer_overhead.py [REPEATS]

Both train the same model with the same method, optimiser and batches in memory, on one thread, in
turn. The bare loop zeroes gradients, calls `method.forward_backward` and steps; the trainer does
what it does in every run: schedule, seeds, random streams for each image, a look at the loss,
metrics, progress, checkpoints that are not due. Validation and the writing of files are left out.
Shown are medians over pairs of epochs, and the middle half of the ratios. Limit: 3 % more, by the
median; `small_resnet` on MNIST, whose steps are far shorter than any in practice, is the hard case.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from advprop.assembly import build_trainer
from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.config.run import ModelConfig
from advprop.data.preprocessing import Preprocessing
from advprop.data.sources import ArraySplit, ImageData
from advprop.recipes.builtin import mnist5k
from advprop.shapes import Batch
from advprop.training.engine import build_accelerator, memory_format
from advprop.training.progress import TrainingProgress
from advprop.training.state import Position
from advprop.training.totals import EpochTotals
from advprop.training.trainer import Trainer

LIMIT = 1.03
METHODS = ("vanilla", "advprop")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A net, its images, and how many batches make an epoch."""

    config: RunConfig
    data: ImageData
    batches: int


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
    return Case(config=config, data=data, batches=2)


def mnist() -> Case:
    """The recipe `mnist5k` as it is: a step of vanilla takes some 20 ms."""
    config = apply_overrides(mnist5k(), ["training.num_epochs=1"])
    return Case(config=config, data=config.data.load(0), batches=5)


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


def seconds(action: Callable[[], None]) -> float:
    """Of this process's CPU, which others on the machine disturb least."""
    began = time.process_time()
    action()
    return time.process_time() - began


def measure(case: Case, method: str, repeats: int) -> list[tuple[float, float]]:
    """Seconds a step of the bare loop and of the trainer, in pairs of neighbouring epochs."""
    config = case.config.with_method(method)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(config, case.data, Path(folder), build_accelerator(config.training))
    layout = memory_format(config.training)
    made = list(trainer.batches(0, 0))[: case.batches]
    batches = [batch.to(torch.device("cpu"), memory_format=layout) for batch in made]
    trainer.batches = lambda epoch, first: batches
    progress = trainer.progress(quiet=True)
    loops = (lambda: bare_epoch(trainer, batches), lambda: trainer_epoch(trainer, progress))
    pairs = []
    for number in range(-1, repeats):
        order = (0, 1) if number % 2 else (1, 0)  # neither always comes first
        found = {loop: seconds(loops[loop]) / len(batches) for loop in order}
        if number >= 0:  # the first pair warms up
            pairs.append((found[0], found[1]))
    return pairs


def row(name: str, pairs: list[tuple[float, float]]) -> tuple[str, float]:
    """A line of the table, and the median ratio."""
    low, middle, high = statistics.quantiles([whole / bare for bare, whole in pairs], n=4)
    bare, whole = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    return (
        f"{name:32} {bare:9.2f} {whole:9.2f} {whole - bare:+8.2f}   "
        f"{middle:.3f} ({low:.3f} to {high:.3f})"
    ), middle


def main(repeats: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, milliseconds of CPU a step, {repeats} pairs")
    print(f"{'':32} {'bare':>9} {'trainer':>9} {'more':>8}   ratio (middle half)")
    missed = []
    for name, case in {"resnet18, 64 pixels": resnet18(), "small_resnet, mnist5k": mnist()}.items():
        for method in METHODS:
            line, ratio = row(f"{name}, {method}", measure(case, method, repeats))
            print(line, flush=True)
            if ratio > LIMIT:
                missed.append(f"{name}, {method}")
    if missed:
        raise SystemExit(f"more than {LIMIT:.2f} times the bare loop: {'; '.join(missed)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 30)
