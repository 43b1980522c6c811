"""Logs to TensorBoard and Weights & Biases, which are extras of the package."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from advprop.files.atomic import writing
from advprop.files.parsing import leaves

_NOT_IN_NAMES = r"[/\\#?%:]"
_GO_ON = "make room or give access, then go on with --resume"


def begin_trackers(
    accelerator: Accelerator,
    folder: Path,
    config: Mapping[str, Any],
    after: int = 0,
    tensorboard: bool = False,
    wandb: str | None = None,
) -> None:
    """Begin the trackers that `accelerator.log` writes to and `accelerator.end_training` finishes.

    `wandb` is PROJECT or TEAM/PROJECT of Weights & Biases. A resumed run continues the same logs:
    TensorBoard hides entries later than step `after`, and Weights & Biases identifies the run by
    its folder. Raises WriteError if `folder` cannot be written, ValueError if wandb refuses.
    """
    if tensorboard:
        with writing(folder, remedy=_GO_ON):
            _begin(accelerator, TensorBoardTracker("tensorboard", folder, purge_step=after + 1))
    if wandb is not None:
        # the folder identifies a run, also after a kill
        identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:12]
        entity, _, project = wandb.rpartition("/")
        tracker = WandBTracker(
            project,
            entity=entity or None,
            id=f"{re.sub(_NOT_IN_NAMES, '_', folder.name)}-{identity}",
            name=folder.name,
            dir=str(folder),
            config=dict(config),
            resume="allow",
        )
        with _wandb_errors():
            _begin(accelerator, tracker)


def _begin(accelerator: Accelerator, tracker: GeneralTracker) -> None:
    tracker.start()
    accelerator.trackers.append(tracker)


def track(accelerator: Accelerator, folder: Path, step: int, values: Mapping[str, float]) -> None:
    """Log `values` of `step` to the trackers; raises WriteError if `folder` cannot be written."""
    with writing(folder, remedy=_GO_ON):
        accelerator.log(dict(values), step=step)


def check_trackers(tensorboard: bool, wandb: str | None) -> None:
    """Raise ImportError or ValueError if a tracker cannot be used; log in to Weights & Biases."""
    if tensorboard:
        try:
            import torch.utils.tensorboard  # noqa: F401
        except ImportError:
            raise ImportError('--tensorboard needs pip install "advprop[tensorboard]"') from None
    if wandb is None:
        return
    names = wandb.split("/")
    if len(names) > 2 or not all(
        name.strip() and len(name) <= 128 and not re.search(_NOT_IN_NAMES, name) for name in names
    ):
        raise ValueError(
            f'--wandb "{wandb}": give PROJECT or TEAM/PROJECT, names of 1 to 128 characters '
            "without / \\ # ? % :"
        )
    package = _wandb()
    if os.environ.get("WANDB_MODE", "online") == "online":
        with _wandb_errors():
            package.login()


def _wandb() -> Any:
    try:
        import wandb
    except ImportError:
        raise ImportError('--wandb needs pip install "advprop[wandb]"') from None
    return wandb


@contextmanager
def _wandb_errors() -> Iterator[None]:
    """Convert errors of Weights & Biases inside to ValueError with a remedy."""
    try:
        yield
    except _wandb().Error as error:
        raise ValueError(
            f"--wandb: {str(error).strip(' .')}: log in by `wandb login` or WANDB_API_KEY, set "
            "WANDB_MODE=offline to send it later, or leave --wandb out"
        ) from None


def flat_numbers(tree: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the numbers in nested mappings with their paths, such as "train/clean/loss"."""
    for path, value in leaves(tree, separator="/"):
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield path, float(value)
