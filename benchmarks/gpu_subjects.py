"""What is measured on a GPU: its nets, how much of each, and a trainer with a batch of noise."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from subjects import EFFICIENTNET_B0, NUM_CLASSES, RESNET18, Subject, method_of

from advprop.config.attacks import PAPER_ATTACK
from advprop.config.methods import method_config
from advprop.config.overrides import apply_overrides
from advprop.config.run import ModelConfig
from advprop.data.preprocessing import Preprocessing
from advprop.data.splits import ArraySplit, ImageData, ImageSplit
from advprop.recipes.builtin import mnist5k
from advprop.runs.trainer import build_trainer
from advprop.shapes import Batch, in_bytes
from advprop.training.engine import build_accelerator
from advprop.training.trainer import Trainer

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
LARGE = tuple(
    replace(subject, image_size=224, batch_size=256)
    for subject in (replace(RESNET18, architecture="resnet50"), EFFICIENTNET_B0)
)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured: everything, or tiny nets that only try the code."""

    small: Subject
    large: tuple[Subject, ...]
    repeats: int
    epochs: int
    pictures: int


WHOLE = Scale(
    small=replace(RESNET18, image_size=64, batch_size=40), large=LARGE, repeats=10, epochs=3,
    pictures=4096,
)  # fmt: skip
_TINY = Subject(architecture="small_resnet", image_size=32, batch_size=10)
TINY = Scale(
    small=_TINY,
    large=(_TINY,),
    repeats=1,
    epochs=1,
    pictures=64,
)


def when_done() -> float:
    """The clock, once the device has done what it was given."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def trainer_of(
    subject: Subject, name: str, num_steps: int = 1, *changes: str
) -> Iterator[tuple[Trainer, Batch]]:
    """A trainer of the method called `name`, and a batch of noise as a loader hands it over."""
    method = method_config(name, PAPER_ATTACK.model_copy(update={"num_steps": num_steps}))
    settings = [f"training.batch_size={subject.batch_size}", "training.num_epochs=100000"]
    settings += ["training.mixed_precision=bf16", "training.ema_decay=0.999"]
    settings += ["data.augmentation={}"]  # methods that draw images several times ask for it
    config = mnist5k().model_copy(
        update={
            "model": ModelConfig(name=subject.architecture, mean=MEAN, std=STD),
            "method": method,
        }
    )
    config = apply_overrides(config, [*settings, *changes])
    batch = as_loaded(subject.batch(method_of(name)))
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(
            config, noise(subject), Path(folder), build_accelerator(config.training)
        )
        trainer.model.train()
        yield trainer, batch.pin_memory() if CUDA else batch


def as_loaded(batch: Batch) -> Batch:
    """The same batch, its images in bytes."""
    views = {name: in_bytes(view) for name, view in batch.views.items()}
    return replace(batch, images=in_bytes(batch.images), views=views)


class Noise(ArraySplit):
    """Images of noise, which the trainer's own loader never reads."""

    def redrawn(self, names: Sequence[str]) -> ImageSplit:
        """The same images: batches of noise have views of their own."""
        return self


def noise(subject: Subject) -> ImageData:
    """A batch of noise as a data set."""
    shape = (3, subject.image_size, subject.image_size)
    pixels = torch.randint(256, (subject.batch_size, *shape), dtype=torch.uint8)
    labels = torch.arange(subject.batch_size) % NUM_CLASSES
    split = Noise(pixels=pixels, labels=labels)
    return ImageData(
        name="noise",
        class_names=tuple(str(number) for number in range(NUM_CLASSES)),
        preprocessing=Preprocessing(image_shape=shape),
        train=split,
        validation=split,
        test=None,
    )
