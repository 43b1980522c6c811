"""Checks whether a run may start or resume in a folder, and prepares the folder for it."""

from __future__ import annotations

import shlex
import shutil
import sys
import warnings
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from advprop.config.overrides import differences, read_config, settings_of_length
from advprop.config.run import RunConfig
from advprop.data.splits import ImageData
from advprop.files.atomic import UNFINISHED, check_no_file, sweep
from advprop.files.json_files import InUseError, in_use, write_json
from advprop.methods.advprop_lean import AdvPropLean
from advprop.runs.facts import (
    HISTORY,
    check_same_data,
    load_data,
    read_history,
    write_data_facts,
)
from advprop.runs.folder import (
    CHECKPOINTS,
    CONFIG,
    DATA,
    KEPT,
    RESULT,
    is_finished,
    read_result,
)
from advprop.training.checkpoint import Checkpoints
from advprop.training.trainer import Trainer

_EPOCHS = "training.num_epochs"
# RESULT is last: as long as it exists, a killed command does the rest when it runs again
_OF_FINISHED = ("record.json", "test.json", RESULT)


def judge_folder(
    folder: Path, config: RunConfig, *, resume: bool, more_epochs: bool
) -> dict[str, Any] | None:
    """Return the result of a finished run, or None if there is something to train.

    Raises ValueError if the folder holds other files, a run (without `resume`), a run of other
    settings, or one of fewer epochs (without `more_epochs`).
    """
    check_no_file(folder)
    if not (folder / CONFIG).is_file():
        _judge_without_config(folder, resume=resume)
        return None
    if not resume:
        raise ValueError(f"{folder}: holds a run; --resume goes on with it, --out takes another")
    try:
        saved = read_config(folder / CONFIG)
    except ValueError as error:
        raise ValueError(
            f"{error}\ndelete it, and the same command goes on with its own settings"
        ) from None
    finished = is_finished(folder)
    longer = config.training.num_epochs > saved.training.num_epochs
    if not finished or longer:
        # tests have yet to run (again), so the new evaluation settings apply
        saved = saved.model_copy(update={"evaluation": config.evaluation})
    _check_same_run(folder, saved, config)
    if longer:
        if not more_epochs:
            raise ValueError(_more_not_asked(folder, saved, config))
        _check_more_epochs(folder, config, finished=finished)
        return None
    return _finished_result(folder, saved, config) if finished else None


def _judge_without_config(folder: Path, *, resume: bool) -> None:
    found = [path.name for path in folder.iterdir()] if folder.exists() else []
    if not any(name != ".lock" and not name.endswith(UNFINISHED) for name in found):
        return
    if not (resume and DATA in found and Checkpoints(folder / CHECKPOINTS).by_step()):
        raise ValueError(f"{folder}: not empty, and not a run; give another --out")
    warnings.warn(
        f"{folder / CONFIG} is gone: the run goes on with the settings of this command",
        stacklevel=2,
    )


def _check_same_run(folder: Path, saved: RunConfig, config: RunConfig) -> None:
    changed = differences(saved, config)
    if list(changed) == [_EPOCHS] and config.training.num_epochs > saved.training.num_epochs:
        return
    if changed:
        listed = "\n  ".join(changed.values())
        shorter = "; a run may be given more epochs, not fewer" * (_EPOCHS in changed)
        as_saved = shlex.join(["advprop", "train", str(folder / CONFIG), "--resume"])
        raise ValueError(
            f"{folder}: holds another run, which cannot resume with these settings{shorter}:"
            f"\n  {listed}\ngive another --out, or go on with the settings there: {as_saved}"
        )


def _more_not_asked(folder: Path, saved: RunConfig, config: RunConfig) -> str:
    now, then = config.training.num_epochs, saved.training.num_epochs
    return (
        f"{folder}: a run of {then} epochs, but the recipe has {now}, and this command does not "
        f"say which is meant: add --set {_EPOCHS}={then} to go on with it, or --set "
        f"{_EPOCHS}={now} to give it more epochs (in Python: more_epochs=True)"
    )


def _check_more_epochs(folder: Path, config: RunConfig, *, finished: bool) -> None:
    if bound := settings_of_length(config):
        raise ValueError(
            f"{folder}: no more epochs for method {config.method.kind} with {', '.join(bound)}: it "
            "changes in the course of its epochs, so a longer run differs from the first epoch "
            "on; train into another --out"
        )
    if finished and isinstance(config.method.build(), AdvPropLean):
        raise ValueError(
            f"{folder}: no more epochs for a finished run of method {config.method.kind}: the "
            "perturbations that it carried were deleted at its end; train into another --out"
        )


def _finished_result(folder: Path, saved: RunConfig, config: RunConfig) -> dict[str, Any]:
    """Return the result of a finished run; save the data's and weights' paths if they moved."""
    result = read_result(folder)
    was, now = saved.absolute(), config.absolute()
    if (was.data, was.model) != (now.data, now.model):
        data, facts = load_data(config)
        _warn(folder, check_same_data(folder, facts, data))
        places = {"data": now.data, "model": now.model}
        write_json(folder / CONFIG, saved.model_copy(update=places).model_dump(mode="json"))
    with suppress(InUseError, OSError), in_use(folder):  # a folder may be read-only
        tidy(folder, keep=config.training.keep_checkpoints)
    return result


def claim(
    folder: Path, facts: Mapping[str, Any], data: ImageData, keep: int, held: ExitStack
) -> list[str]:
    """Lock the folder until `held` closes, delete leftovers, and return the changes in the data.

    Raises ValueError if another process trains in it or the run cannot go on with these data.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held.enter_context(in_use(folder))
    read_history(folder)  # raises for a damaged file before anything is written
    tidy(folder, keep=keep)
    if not Checkpoints(folder / CHECKPOINTS).by_step():
        # what a method stored belongs to steps that no checkpoint has
        shutil.rmtree(folder / KEPT, ignore_errors=True)
    return check_same_data(folder, facts, data)


def tidy(folder: Path, *, keep: int) -> None:
    """Delete the leftovers of killed processes; the caller must hold the folder's lock."""
    for place in (folder, folder / CHECKPOINTS):
        sweep(place)
    Checkpoints(folder / CHECKPOINTS, keep=keep).drop_old()
    if is_finished(folder):  # a finished run no longer needs its method's files
        shutil.rmtree(folder / KEPT, ignore_errors=True)


def begin(
    folder: Path,
    config: RunConfig,
    facts: Mapping[str, Any],
    trainer: Trainer,
    *,
    changes: list[str],
    quiet: bool,
) -> None:
    """Write the run's settings and data facts, and record what changed since it began."""
    _warn(folder, changes)
    entries: list[dict[str, Any]] = [{"change": change} for change in changes]
    if (folder / CONFIG).is_file():
        before = read_config(folder / CONFIG).training.num_epochs
        if before < config.training.num_epochs:
            after = config.training.num_epochs
            change = (
                f"{after} epochs instead of {before}, from epoch {trainer.position.epoch + 1} on: "
                f"the learning rate is now that of a run of {after} epochs, and may jump"
            )
            entries.append({"change": change, "num_epochs": [before, after]})
            _set_aside(folder, before)
            if not quiet:
                print(change, file=sys.stderr, flush=True)
    if entries:
        position = {"epoch": trainer.position.epoch, "step": trainer.position.step}
        history = [*read_history(folder), *({**position, **entry} for entry in entries)]
        write_json(folder / HISTORY, {"history": history})
    write_settings(folder, config, facts)


def write_settings(folder: Path, config: RunConfig, facts: Mapping[str, Any]) -> None:
    """Write `config.json` and `data.json`, which mark the folder as a run's."""
    # the configuration first: a folder without it is not recognised as a run's
    write_json(folder / CONFIG, config.absolute().model_dump(mode="json"))
    write_data_facts(folder, facts)


def _set_aside(folder: Path, epochs: int) -> None:
    """Rename the result files of a finished run of `epochs` epochs so that they are kept."""
    if not (folder / RESULT).is_file():
        return
    for name in _OF_FINISHED:
        path = folder / name
        if path.is_file():
            path.replace(path.with_name(f"{path.stem}-{epochs}-epochs{path.suffix}"))


def _warn(folder: Path, changes: list[str]) -> None:
    if changes:
        warnings.warn(
            f"{folder}: the data have changed since the run began: {'; '.join(changes)}; it goes "
            f"on with them as they are now, and {HISTORY} says so",
            stacklevel=2,
        )
