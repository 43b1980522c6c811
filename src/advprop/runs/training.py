"""Trains a configuration into a run's folder, in one or several processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from advprop.config.overrides import settings_of_weights
from advprop.config.run import RunConfig
from advprop.data.batches.workers import worker_deaths_explained
from advprop.files.atomic import writing
from advprop.files.json_files import write_json
from advprop.files.parsing import printable
from advprop.runs.beginning import begin, claim, judge_folder, tidy, write_settings
from advprop.runs.facts import load_data, read_history
from advprop.runs.folder import CHECKPOINTS, RESULT, versions
from advprop.runs.trainer import build_trainer
from advprop.training.agreement import check_same, each, first
from advprop.training.checkpoint import Checkpoints
from advprop.training.engine import build_accelerator
from advprop.training.processes import LOST_AFTER, LostProcessError, is_lost_process
from advprop.training.switches import torch_switches
from advprop.training.trackers import begin_trackers, check_trackers
from advprop.training.trainer import Trainer


def train(
    config: RunConfig,
    out: str | Path,
    *,
    resume: bool = False,
    more_epochs: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
    wandb: str | None = None,
) -> dict[str, Any]:
    """Train as `config` says, in the folder `out`, and return the contents of `result.json`.

    With `resume`, go on from the newest intact checkpoint in `out`, or start if there is none; a
    finished run stays as it is. `more_epochs` permits a larger number of epochs than the run had.
    `tensorboard` writes event files into `out`, `wandb` names a project of Weights & Biases. Raises
    ValueError if the folder holds a run (without `resume`) or a run of other settings or data (with
    it), or another process trains in it. NotFiniteError, InterruptedTraining and LostProcessError
    end a run early; it can resume. Under `torchrun` every process calls this, the first writes.
    """
    with torch_switches(config.training), ExitStack() as held:
        folder, accelerator = Path(out), build_accelerator(config.training)
        held.enter_context(_process_group(accelerator, folder))
        first(accelerator, lambda: check_trackers(tensorboard, wandb))
        judge = partial(judge_folder, folder, config, resume=resume, more_epochs=more_epochs)
        result = first(accelerator, judge)
        if result is not None:
            return result
        data, facts = each(accelerator, lambda: load_data(config))
        check_same(accelerator, _comparable(config, facts), remedy=_SAME_DATA)
        trainer = build_trainer(_without_used_weights(config, folder), data, folder, accelerator)
        keep = config.training.keep_checkpoints
        changes = first(accelerator, lambda: claim(folder, facts, data, keep, held))
        _go_on(trainer)
        if accelerator.is_main_process:
            if not quiet:
                told = "\n".join(config.start_lines(facts["found"]))
                print(printable(told), file=sys.stderr, flush=True)
            begin(folder, config, facts, trainer, changes=changes, quiet=quiet)
            # the process may have been killed between an epoch's entry and its checkpoint
            trainer.log.rewind(trainer.position.step)
            settings, step = config.model_dump(mode="json"), trainer.position.step
            begin_trackers(accelerator, folder, settings, step, tensorboard, wandb)
        with worker_deaths_explained():
            trainer.fit(quiet=quiet)
        result = first(accelerator, lambda: _result(config, trainer))
        if accelerator.is_main_process:
            write_settings(folder, config, facts)  # they may have been deleted or damaged
            write_json(folder / RESULT, result)
            tidy(folder, keep=keep)
    return result


def _go_on(trainer: Trainer) -> None:
    """Load the newest checkpoint, if any; raises ValueError if processes differ in their step."""

    def load() -> None:
        state = trainer.checkpoints.load_newest()
        if state is not None:
            trainer.load_state_dict(state)

    each(trainer.accelerator, load)
    step = {"the step to go on from": trainer.position.step}
    check_same(trainer.accelerator, step, remedy=_SAME_DISK)


def _comparable(config: RunConfig, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that must be equal in all processes, keyed by names for messages."""
    same = {name: value for name, value in facts.items() if name not in ("name", "images", "found")}
    for split, of_split in facts["images"].items():
        same[f"names or labels of {split} images"] = of_split["order_sha256"].encode()
        same[f"contents of {split} images"] = of_split["checksums"].encode()
    return {**settings_of_weights(config), **same}


_SAME_DATA = "start all of them with the same settings, on the same images"
_SAME_DISK = "all of them must see the run's folder; put --out on a disk that all machines share"


@contextmanager
def _process_group(accelerator: Accelerator, folder: Path) -> Iterator[None]:
    """Leave the process group at the end; raises LostProcessError if another process is gone."""
    try:
        yield
    except RuntimeError as error:
        if accelerator.num_processes > 1 and is_lost_process(error):
            raise LostProcessError(
                "another process of this run has ended, or did not answer for "
                f"{LOST_AFTER.total_seconds() / 60:g} minutes; go on with the same command and "
                "--resume"
            ) from error
        raise
    finally:
        with writing(folder):  # trackers write their remaining entries
            # a process group that is left open would abort the process
            accelerator.end_training()


def _without_used_weights(config: RunConfig, folder: Path) -> RunConfig:
    """Return `config`, without initial weights if checkpoints exist: their file may be gone."""
    if not Checkpoints(folder / CHECKPOINTS).by_step():
        return config
    return config.model_copy(update={"model": config.model.without_weights()})


def _result(config: RunConfig, trainer: Trainer) -> dict[str, Any]:
    epochs, passes = config.training.num_epochs, trainer.method.passes_per_image
    last, history = trainer.log.read()[-1:], read_history(trainer.log.path.parent)
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
        **({"history": history} if history else {}),
    }
