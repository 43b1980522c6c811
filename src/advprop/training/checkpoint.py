"""Checkpoints of a run, which are written atomically and read without running code from them."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import nn

from advprop.files.atomic import sweep, write_atomically
from advprop.models.loading import load_exactly, read_torch_file

FORMAT = 1


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in `folder`: the `keep` newest, and the weights that validated best."""

    folder: Path
    keep: int = 2

    @property
    def best(self) -> Path:
        """Return the path of the weights with the best validation accuracy."""
        return self.folder / "best.pt"

    def by_step(self) -> list[Path]:
        """Return the paths of all checkpoints but the best, newest first."""
        return sorted(self.folder.glob("step-*.pt"), reverse=True)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the checkpoint of `step`, then delete old ones; raises OSError if it fails.

        Only the process that holds the run's lock may call it, since it deletes unfinished files.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.folder)
        _write(self.folder / f"step-{step:09d}.pt", state)
        self.drop_old()

    def drop_old(self) -> None:
        """Delete all checkpoints but the newest `keep` and the best weights."""
        for old in self.by_step()[self.keep :]:
            old.unlink(missing_ok=True)

    def save_best(self, state: Mapping[str, Any]) -> None:
        """Write the best weights; raises OSError if it fails."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.best, state)

    def load_newest(self) -> dict[str, Any] | None:
        """Return the newest intact checkpoint, or None if there are no checkpoints.

        Warns of each damaged checkpoint that it skips; raises ValueError if all are damaged.
        """
        paths = self.by_step()
        for path in paths:
            try:
                return read_checkpoint(path)
            except ValueError as error:
                warnings.warn(f"{error}; trying the one before", stacklevel=2)
        if paths:
            raise ValueError(
                f"no checkpoint in {self.folder} is intact: train into another folder, "
                "or delete this one to start again"
            )
        return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the contents of a checkpoint, on the CPU, with its path as "source" for messages.

    Raises ValueError if the file is missing, damaged or no checkpoint of this format.
    """
    try:
        state = read_torch_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such checkpoint") from None
    except (ValueError, pickle.UnpicklingError):
        raise ValueError(f"{path}: damaged, or no checkpoint") from None
    if not isinstance(state, dict) or "format" not in state or "model" not in state:
        raise ValueError(f"{path}: not a checkpoint of advprop")
    if type(state["format"]) is not int or state["format"] != FORMAT:
        raise ValueError(
            f"{path}: checkpoint format {state['format']}, this version reads {FORMAT}"
        )
    return {**state, "source": str(path)}


def load_weights(model: nn.Module, weights: object, *, source: str) -> None:
    """Load `weights`, tensors by name, into `model`; raises ValueError if they do not fit."""
    remedy = "put the file, or the configuration of its run, back as it was"
    load_exactly(model, weights, source=source, remedy=remedy)


def _write(path: Path, state: Mapping[str, Any]) -> None:
    write_atomically(
        path,
        lambda file: _save({"format": FORMAT, **state}, file),
        remedy="earlier checkpoints are intact: make room or give access, then go on with --resume",
    )


def _save(state: Mapping[str, Any], file: IO[bytes]) -> None:
    """Save `state` to `file`; errors of `file`, such as a full disk or Ctrl-C, pass unchanged."""
    try:
        torch.save(state, file)
    except RuntimeError as error:
        # torch's writer replaces the error of the file by one of its own
        if "inline_container" in str(error) and error.__context__ is not None:
            raise error.__context__ from None
        raise
