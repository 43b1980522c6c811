"""Runs for tests: cut off in the middle; what their folders tell of their steps and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from advprop.config import RunConfig
from advprop.runs import train
from advprop.runs.folder import load_run
from advprop.training.trainer import Trainer


def cut_off(config: RunConfig, folder: Path, *, after: int, **options: bool) -> None:
    """Train in `folder` and die when so many steps are done, as by `kill -9`: unsaved."""
    whole_step = Trainer.train_step

    def dying(self: Trainer, *arguments: object) -> None:
        if self.position.step == after:
            raise MemoryError("killed")
        whole_step(self, *arguments)  # type: ignore[arg-type]

    with mock.patch.object(Trainer, "train_step", dying), pytest.raises(MemoryError):
        train(config, folder, quiet=True, **options)


def log_of(folder: Path) -> list[dict[str, Any]]:
    """What the run logged of each epoch."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the run's last step."""
    return load_run(folder, weights="last").model.state_dict()
