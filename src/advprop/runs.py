"""`train`: from a configuration to a run's folder."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from advprop.assembly import build_trainer
from advprop.config.overrides import differences, read_config
from advprop.config.run import RunConfig
from advprop.data.found import found_in
from advprop.data.sources import ImageData
from advprop.data.workers import worker_deaths_explained
from advprop.parsing import printable
from advprop.run_folder import (
    CHECKPOINTS,
    CONFIG,
    KEPT,
    RESULT,
    check_same_data,
    is_finished,
    read_result,
    versions,
    write_data_facts,
)
from advprop.training.checkpoint import Checkpoints
from advprop.training.engine import build_accelerator
from advprop.training.files import UNFINISHED, in_use, sweep, write_json
from advprop.training.processes import LostProcessError, check_same_step, is_lost_process
from advprop.training.trackers import TensorBoard, Tracker, WeightsAndBiases, check_trackers
from advprop.training.trainer import Trainer

_Finding = TypeVar("_Finding")


def train(
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    wandb: str | None = None,
) -> dict[str, Any]:
    """Train as `config` says, in the folder `out`, and return what `result.json` then holds.

    With `resume`, go on from the newest whole checkpoint in `out`, or start where there is none
    yet; a finished run is left as it is. `tensorboard` writes event files into `out`, `wandb` names
    a project of Weights & Biases. Raises ValueError for a folder that holds a run (without
    `resume`), another configuration or other data (with it), or that another process trains in;
    NotFiniteError and InterruptedTraining (`advprop.training.stopping`) end a run early, saved.
    Under `torchrun` every process calls this; the first one judges and writes the folder.
    """
    folder, accelerator = Path(out), build_accelerator(config.training)
    with _process_group(accelerator), ExitStack() as held:
        _agreed(accelerator, lambda: check_trackers(tensorboard, wandb))
        result = _agreed(accelerator, lambda: _judge_folder(folder, config, resume=resume))
        if result is not None:
            return result
        data = config.data.load(config.seed)
        trainer = build_trainer(_where_it_is(config, folder), data, folder, accelerator)
        _agreed(accelerator, lambda: _claim(folder, data, held))
        state = trainer.checkpoints.load_newest()
        if state is not None:
            trainer.load_state_dict(state)
        check_same_step(accelerator, trainer.position.step)
        if accelerator.is_main_process:
            # the configuration first: a folder without is taken for somebody else's
            write_json(folder / CONFIG, config.model_dump(mode="json"))
            write_data_facts(folder, data)
            if not quiet:
                _say(config.start_lines(found_in(data)))
            # a kill may have come between an epoch's entry and its checkpoint
            trainer.log.rewind(trainer.position.step)
            trainer.trackers = _trackers(config, folder, trainer.position.step, tensorboard, wandb)
        for tracker in trainer.trackers:
            held.callback(tracker.close)
        with worker_deaths_explained():
            trainer.fit(quiet=quiet)
        result = _agreed(accelerator, lambda: _result(config, trainer))
        if accelerator.is_main_process:
            write_json(folder / RESULT, result)
            # nothing goes on from a finished run
            shutil.rmtree(folder / KEPT, ignore_errors=True)
    return result


def _say(lines: list[str]) -> None:
    print(printable("\n".join(lines)), file=sys.stderr, flush=True)


@contextmanager
def _process_group(accelerator: Accelerator) -> Iterator[None]:
    """Leave the process group however a run ends: one left open would abort the process."""
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes > 1 and is_lost_process(error):
            raise LostProcessError(
                "another process of this run has ended; go on with the same command and --resume"
            ) from error
        raise
    finally:
        accelerator.end_training()


def _judge_folder(folder: Path, config: RunConfig, *, resume: bool) -> dict[str, Any] | None:
    """Refuse a folder that the run may not use; the result of a run that is finished already."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file, not a folder; give another --out")
    if not (folder / CONFIG).is_file():
        found = [path.name for path in folder.iterdir()] if folder.exists() else []
        if any(name != ".lock" and not name.endswith(UNFINISHED) for name in found):
            raise ValueError(f"{folder}: not empty, and not a run; give another --out")
        return None
    if not resume:
        raise ValueError(f"{folder}: holds a run; --resume goes on with it, --out takes another")
    saved = read_config(folder / CONFIG)
    if not is_finished(folder):  # nothing was tested yet, and the new settings are what is recorded
        saved = saved.model_copy(update={"evaluation": config.evaluation})
    changed = differences(saved, config)
    if changed:
        listed = "\n  ".join(changed)
        raise ValueError(f"{folder}: holds another run, not to be resumed as this one:\n  {listed}")
    return read_result(folder) if is_finished(folder) else None


def _where_it_is(config: RunConfig, folder: Path) -> RunConfig:
    """The same run; where it has checkpoints, the weights that it began from need not be there."""
    if not Checkpoints(folder / CHECKPOINTS).by_step():
        return config
    return config.model_copy(update={"model": config.model.without_weights()})


def _claim(folder: Path, data: ImageData, held: ExitStack) -> None:
    """Lock the folder for as long as `held` lasts, and sweep what a kill left half written."""
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(in_use(folder))
    sweep(folder)
    if not Checkpoints(folder / CHECKPOINTS).by_step():
        # of steps that no checkpoint knows of
        shutil.rmtree(folder / KEPT, ignore_errors=True)
    check_same_data(folder, data)


def _agreed(accelerator: Accelerator, judge: Callable[[], _Finding]) -> _Finding:
    """What the first process finds; its refusal ends the others too, silently."""
    outcome: list[Any] = [None]
    if accelerator.is_main_process:
        try:
            outcome = [judge()]
        except (OSError, ValueError, ImportError) as error:
            outcome = [error]
    broadcast_object_list(outcome)
    if isinstance(outcome[0], Exception):
        if not accelerator.is_main_process:
            raise SystemExit(2)
        raise outcome[0]
    return cast("_Finding", outcome[0])


def _trackers(
    config: RunConfig, folder: Path, step: int, tensorboard: bool, wandb: str | None
) -> list[Tracker]:
    trackers: list[Tracker] = [TensorBoard(folder, after=step)] if tensorboard else []
    if wandb is not None:
        settings = config.model_dump(mode="json")
        trackers.append(WeightsAndBiases(folder, settings, project=wandb))
    return trackers


def _result(config: RunConfig, trainer: Trainer) -> dict[str, Any]:
    epochs, passes = config.training.num_epochs, trainer.method.passes_per_image
    last = trainer.log.read()[-1:]
    if (
        not last
        or last[0]["step"] != trainer.position.step
        or last[0]["validation_accuracy"] is None
    ):
        raise ValueError(
            f"{trainer.log.path}: the last epoch's entry is missing or damaged: move "
            f"{trainer.checkpoints.by_step()[0]} away, and --resume trains that epoch again"
        )
    return {
        "recipe": config.recipe,
        "method": config.method.kind,
        "seed": config.seed,
        "epochs": epochs,
        "passes_per_image": passes,
        "total_passes": epochs * passes,
        "train_seconds": round(trainer.position.seconds, 3),
        "validation_accuracy": last[0]["validation_accuracy"],
        "best_validation_accuracy": trainer.position.best_validation_accuracy,
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }
