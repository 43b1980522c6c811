"""Steps of the trainer on fake CUDA tensors."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from fake_cuda import DEVICE, Findings, fake_cuda
from torch import nn

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.shapes import Batch, unit_range
from advprop.tasks.task import Classification
from advprop.training.checkpoint import Checkpoints
from advprop.training.engine import build_accelerator
from advprop.training.run_log import RunLog
from advprop.training.settings import TrainingSettings
from advprop.training.trainer import Trainer

NUM_CLASSES = 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method, and what it trains on which net; after mixup labels are `soft`, images floats."""

    method: Method
    net: Callable[[], nn.Module]
    size: int = 32
    batch_size: int = 8
    surgery: Callable[[nn.Module, tuple[str, ...]], nn.Module] = add_auxiliary_norms
    frames: bool = False
    soft: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def batch_of(case: Case) -> Batch:
    """On the CPU, as a loader yields it."""
    images = torch.randint(256, (case.batch_size, 3, case.size, case.size), dtype=torch.uint8)
    indices = torch.arange(case.batch_size)
    labels = indices % NUM_CLASSES
    return Batch(
        images=unit_range(images) if case.soft else images,
        labels=torch.eye(NUM_CLASSES)[labels] if case.soft else labels,
        indices=indices,
        copies=torch.zeros_like(indices),
        views=dict.fromkeys(case.method.views, images),
        frames=0.8 * torch.eye(2, 3).repeat(case.batch_size, 1, 1) if case.frames else None,
    )


def trainer_of(case: Case, precision: str, folder: Path) -> Trainer:
    """The trainer itself, with accelerate's precision; only inside `fake_cuda`."""
    settings = TrainingSettings(
        num_epochs=2,
        batch_size=case.batch_size,
        ema_decay=0.99,
        gradient_clip=1.0,
        mixed_precision=precision,
        **case.settings,
    )
    model = case.net()
    if case.method.auxiliary:
        model = case.surgery(model, case.method.auxiliary)
    shape = (3, case.size, case.size)
    case.method.prepare(TrainingFacts(num_images=case.batch_size, image_shape=shape))
    with (
        mock.patch.dict(os.environ, ACCELERATE_TORCH_DEVICE=str(DEVICE)),
        mock.patch.object(torch.accelerator, "is_available", return_value=True),
    ):
        accelerator = build_accelerator(settings)
    accelerator.device_placement = False  # torch cannot move a fake parameter twice
    return Trainer(
        task=Classification.smoothed(settings.label_smoothing),
        model=model,
        method=case.method,
        settings=settings,
        seed=0,
        batches=lambda epoch, first: [],
        steps_per_epoch=2,
        validate=lambda model: 0.0,
        checkpoints=Checkpoints(folder),
        log=RunLog(folder / "log.jsonl"),
        accelerator=accelerator,
    )


def steps(case: Case, precision: str, folder: Path, *, count: int = 2) -> list[Findings]:
    """What each of `count` steps, in an epoch of its own, asks of the device."""
    each = []
    with fake_cuda() as found:
        found.number = 0  # a gradient scaler reads whether there were overflows
        trainer, batch = trainer_of(case, precision, folder), batch_of(case)
        trainer.model.train()
        found.watch(trainer.model)
        for number in range(count):
            trainer.position.epoch = number
            found.clear()
            trainer.train_step(batch)
            each.append(copy.deepcopy(found))
        for name, parameter in trainer.plain_model.named_parameters():
            assert parameter.grad is not None, f"{name} has no gradient"
            assert parameter.grad.device == DEVICE, f"{name} has one on {parameter.grad.device}"
    return each
