"""`train`: from a configuration to a run's folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from timm.layers import convert_sync_batchnorm
from torch import nn

from advprop.config.overrides import differences, read_config
from advprop.config.run import RunConfig
from advprop.data.loaders import Batches, num_train_batches, test_batches, train_batches
from advprop.data.sources import ImageSplit
from advprop.evaluation.accuracy import evaluate_clean
from advprop.run_folder import (
    CONFIG,
    METRICS,
    RESULT,
    build_run_model,
    is_finished,
    read_result,
    versions,
)
from advprop.training.checkpoint import Checkpoints
from advprop.training.files import write_json
from advprop.training.run_log import RunLog
from advprop.training.trainer import Trainer


def train(
    config: RunConfig, out: str | Path, *, resume: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train as `config` says, in the folder `out`, and return what `result.json` then holds.

    With `resume`, go on from the newest whole checkpoint in `out`, or start where there is none
    yet; a finished run is left as it is. Raises ValueError for a folder that holds a run (without
    `resume`) or another configuration (with it); NotFiniteError and InterruptedTraining
    (`advprop.training.stopping`) end a run early, saved.
    """
    folder = Path(out)
    accelerator = _accelerator(config)
    result = _agreed(accelerator, lambda: _judge_folder(folder, config, resume=resume))
    if result is not None:
        return result
    trainer = _trainer(config, folder, accelerator)
    state = trainer.checkpoints.load_newest()
    if state is not None:
        trainer.load_state_dict(state)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / CONFIG, config.model_dump(mode="json"))
    accelerator.wait_for_everyone()
    trainer.fit(quiet=quiet)
    result = _result(config, trainer)
    if accelerator.is_main_process:
        write_json(folder / RESULT, result)
    accelerator.end_training()  # a process group left open would abort the process
    return result


def _judge_folder(folder: Path, config: RunConfig, *, resume: bool) -> dict[str, Any] | None:
    """Refuse a folder that the run may not use; the result of a run that is finished already."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file, not a folder; give another --out")
    if not (folder / CONFIG).is_file():
        if folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder}: not empty, and not a run; give another --out")
        return None
    if not resume:
        raise ValueError(f"{folder}: holds a run; --resume goes on with it, --out takes another")
    changed = differences(read_config(folder / CONFIG), config)
    if changed:
        listed = "\n  ".join(changed)
        raise ValueError(f"{folder}: holds another run, not to be resumed as this one:\n  {listed}")
    return read_result(folder) if is_finished(folder) else None


def _agreed(
    accelerator: Accelerator, judge: Callable[[], dict[str, Any] | None]
) -> dict[str, Any] | None:
    """What the first process finds; its refusal is every process's."""
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [judge()]
        except (OSError, ValueError) as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return cast("dict[str, Any] | None", outcome[0])


def _accelerator(config: RunConfig) -> Accelerator:
    if AcceleratorState._shared_state:
        # a second run in one process may use another precision
        AcceleratorState._reset_state()
    # without cpu=True, processes that torchrun starts on a CPU would not know of each other
    on_cpu = not torch.accelerator.is_available()
    return Accelerator(cpu=on_cpu, mixed_precision=config.training.mixed_precision)


def _trainer(config: RunConfig, folder: Path, accelerator: Accelerator) -> Trainer:
    data = config.data.load(config.seed)
    settings, rank, world = config.training, accelerator.process_index, accelerator.num_processes
    model: nn.Module = build_run_model(config, data)
    if world > 1 and accelerator.device.type == "cuda":
        model = convert_sync_batchnorm(model)

    def batches(epoch: int, first_batch: int) -> Batches:
        return train_batches(
            data.train,
            batch_size=settings.batch_size,
            seed=config.seed,
            epoch=epoch,
            first_batch=first_batch,
            num_workers=settings.num_workers,
            rank=rank,
            world_size=world,
        )

    def validate(model: nn.Module) -> float:
        return clean_accuracy(model, data.validation, batch_size=config.evaluation.batch_size)

    return Trainer(
        model=model,
        method=config.method.build(),
        settings=settings,
        seed=config.seed,
        batches=batches,
        steps_per_epoch=num_train_batches(len(data.train), batch_size=settings.batch_size),
        validate=validate,
        checkpoints=Checkpoints(folder / "checkpoints"),
        log=RunLog(folder / METRICS),
        accelerator=accelerator,
    )


def clean_accuracy(model: nn.Module, split: ImageSplit, *, batch_size: int) -> float:
    """Accuracy of the clean branch, in eval mode; the model's mode is as before after it."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    batches = (
        batch.to(device, memory_format=torch.contiguous_format)
        for batch in test_batches(split, batch_size=batch_size)
    )
    try:
        return float(evaluate_clean(model, batches)["clean_accuracy"])
    finally:
        model.train(training)


def _result(config: RunConfig, trainer: Trainer) -> dict[str, Any]:
    epochs, passes = config.training.num_epochs, trainer.method.passes_per_image
    accuracies = [entry["validation_accuracy"] for entry in trainer.log.read()]
    return {
        "recipe": config.recipe,
        "method": config.method.kind,
        "seed": config.seed,
        "epochs": epochs,
        "passes_per_image": passes,
        "total_passes": epochs * passes,
        "train_seconds": round(trainer.position.seconds, 3),
        "validation_accuracy": accuracies[-1],
        "best_validation_accuracy": trainer.position.best_validation_accuracy,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
