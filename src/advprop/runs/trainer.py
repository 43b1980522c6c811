"""Builds a `Trainer` from a configuration: model, method, batches and validation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from timm.layers import convert_sync_batchnorm
from torch import nn

from advprop.auxiliary.branches import branch_names
from advprop.auxiliary.route import has_auxiliary_norms
from advprop.auxiliary.statistics import equals_clean
from advprop.config.run import ModelConfig, RunConfig
from advprop.data.batches.loaders import Batches, test_batches, train_batches
from advprop.data.batches.workers import UnreadableTally
from advprop.data.splits import ImageData, ImageSplit
from advprop.evaluation.accuracy import evaluate_clean
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.models.trial import check_forward
from advprop.runs.folder import CHECKPOINTS, KEPT, METRICS, build_run_model
from advprop.training.checkpoint import Checkpoints
from advprop.training.micro_batches import part_size
from advprop.training.processes import num_machines
from advprop.training.run_log import RunLog
from advprop.training.trainer import Trainer


def build_trainer(
    config: RunConfig, data: ImageData, folder: Path, accelerator: Accelerator
) -> Trainer:
    """Return a run's trainer at step 0; raises ValueError if the settings do not fit together."""
    settings = config.training
    method = config.method.build()
    if accelerator.num_processes > 1:
        method.check_distributed()
    tally = UnreadableTally(
        max_share=data.train.max_unreadable,
        num_images=len(data.train),
        num_processes=accelerator.num_processes,
    )
    batches = _training_batches(config, data, accelerator, tally, method)
    first_epoch = batches(0, 0)
    share = len(first_epoch.indices[0])  # below batch_size if there are fewer images
    part_size(share, settings.gradient_accumulation)
    method.prepare(_facts(config, data, folder, accelerator))
    model = with_synchronised_statistics(
        _checked_model(config, data),
        method,
        settings.sync_batchnorm,
        num_processes=accelerator.num_processes,
        device=accelerator.device,
    )

    def inspect(model: nn.Module) -> list[str]:
        unread = [f"{tally.count} training images could not be read; others stood in for them"]
        return unused_branches(model) + (unread if tally.count else [])

    return Trainer(
        model=model,
        method=method,
        settings=replace(settings, batch_size=share * accelerator.num_processes),
        seed=config.seed,
        batches=batches,
        steps_per_epoch=len(first_epoch),
        validate=partial(
            shared_accuracy,
            split=data.validation,
            accelerator=accelerator,
            batch_size=config.evaluation.batch_size,
            num_workers=settings.num_workers,
        ),
        checkpoints=Checkpoints(folder / CHECKPOINTS, keep=settings.keep_checkpoints),
        log=RunLog(folder / METRICS),
        accelerator=accelerator,
        inspect=inspect,
        task=config.data.task(data, settings.label_smoothing),
    )


def check_plain_model(model: ModelConfig, data: ImageData) -> None:
    """Raise ValueError if the model cannot be built or cannot process the images."""
    with torch.random.fork_rng(devices=[]):
        plain = model.build(num_classes=data.num_classes, image_shape=data.image_shape)
    check_forward(plain, model.name, image_shape=data.image_shape, num_classes=data.num_classes)


def _checked_model(config: RunConfig, data: ImageData) -> nn.Module:
    """Return the run's model; raises ValueError if it cannot run on the images as configured."""
    model = build_run_model(config, data)
    check_forward(
        model, config.model.name, image_shape=data.image_shape, num_classes=data.num_classes
    )
    return model


def _facts(
    config: RunConfig, data: ImageData, folder: Path, accelerator: Accelerator
) -> TrainingFacts:
    return TrainingFacts(
        num_images=len(data.train),
        image_shape=data.image_shape,
        folder=folder / KEPT,
        seed=config.seed,
        num_processes=accelerator.num_processes,
        num_machines=num_machines(accelerator),
        repeats=config.data.sampling.repeats,
        mixes_images=config.data.mixing.is_on,
    )


def with_synchronised_statistics(
    model: nn.Module,
    method: Method,
    wanted: bool | None,
    *,
    num_processes: int,
    device: torch.device,
) -> nn.Module:
    """Return `model`, with SyncBatchNorm in every branch if `wanted` and on several processes.

    `wanted=None` means: on GPUs, if the method supports it. Raises ValueError if it is wanted but
    the method or the device does not support it.
    """
    if wanted and not method.synchronises_statistics:
        raise ValueError(
            f"training.sync_batchnorm with {type(method).__name__}, which moves images to other "
            "processes so that they are normalised among others: set it to none or false"
        )
    if wanted and num_processes > 1 and device.type == "cpu":
        raise ValueError(
            f"training.sync_batchnorm on {num_processes} processes without GPUs: torch's "
            "SyncBatchNorm needs them; set it to none or false, by which running statistics are "
            "averaged after each step, or train in one process"
        )
    if wanted is None:
        wanted = device.type == "cuda" and method.synchronises_statistics
    if num_processes == 1 or not wanted:
        return model
    converted: nn.Module = convert_sync_batchnorm(model)
    return converted


def _training_batches(
    config: RunConfig,
    data: ImageData,
    accelerator: Accelerator,
    tally: UnreadableTally,
    method: Method,
) -> Callable[[int, int], Batches]:
    """Return a function from an epoch and its first batch to this process's share of batches."""
    return lambda epoch, first_batch: train_batches(
        data.train,
        batch_size=config.training.batch_size,
        seed=config.seed,
        epoch=epoch,
        first_batch=first_batch,
        num_workers=config.training.num_workers,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        sampling=config.data.sampling,
        mixing=config.data.mixing,
        versions=method.versions,
        num_classes=data.num_classes,
        tally=tally,
        pin_memory=accelerator.device.type != "cpu",
    )


def shared_accuracy(
    model: nn.Module,
    split: ImageSplit,
    accelerator: Accelerator,
    *,
    batch_size: int,
    num_workers: int = 0,
) -> float:
    """Return the clean branch's accuracy on `split`, of which each process tests its share.

    The model runs in eval mode, in the precision of training, and its mode is restored. Each
    process reads images with `num_workers` workers.
    """
    training = model.training
    model.eval()
    batches = test_batches(
        split,
        batch_size=batch_size,
        num_workers=num_workers,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        pin_memory=accelerator.device.type != "cpu",
    )
    moved = (
        batch.to(accelerator.device, memory_format=torch.contiguous_format) for batch in batches
    )
    try:
        with accelerator.autocast():
            found = evaluate_clean(model, moved) if len(batches) else None
    finally:
        model.train(training)
    images = found["num_images"] if found else 0
    correct = found["clean_accuracy"] * images if found else 0
    # MPS has no float64; of classes these are whole numbers, which float32 holds exactly
    counts = torch.tensor([correct, images], device=accelerator.device, dtype=torch.float32)
    correct, images = accelerator.reduce(counts).tolist()
    return float(correct / images)


def unused_branches(model: nn.Module) -> list[str]:
    """Return a warning for each auxiliary branch that equals the clean one in every layer."""
    if not has_auxiliary_norms(model):
        return []
    _, *auxiliary = branch_names(model)
    return [
        f'branch "{branch}" does not differ from the clean one: no images went through it'
        for branch in auxiliary
        if equals_clean(model, branch)
    ]
