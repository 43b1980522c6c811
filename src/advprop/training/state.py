"""The whole state of a training run, as checkpoints save it."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import torch
from torch import nn

from advprop.methods.base import Method
from advprop.training.average import WeightAverage
from advprop.training.checkpoint import load_weights
from advprop.training.optimizer_state import check_number, load_optimizer, load_scaler
from advprop.training.position import Position
from advprop.training.settings import TrainingSettings
from advprop.training.stopping import check_finite_weights
from advprop.training.totals import EpochTotals


@dataclass
class TrainingState:
    """Weights of all branches, optimiser, average, loss scale, method's state, and position.

    Nothing else needs to be saved: random numbers are functions of seed, epoch and image.
    """

    model: nn.Module
    optimizer: Any  # an optimiser or accelerate's wrapper
    ema: WeightAverage | None
    scaler: Any
    method: Method
    position: Position = field(default_factory=Position)
    totals: EpochTotals = field(default_factory=EpochTotals)

    @property
    def averaged_model(self) -> nn.Module:
        """The average of the weights if there is one, else the model itself."""
        return self.model if self.ema is None else cast("nn.Module", self.ema.module)

    def update_average(self) -> None:
        """Add the current weights to the average, if there is one."""
        if self.ema is not None:
            self.ema.update(self.model, step=self.position.step)

    def check_finite(self, settings: TrainingSettings) -> None:
        """Raise NotFiniteError, in all processes alike, if weights are not finite."""
        check_finite_weights(self.model, self.position, settings)

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "position": asdict(self.position),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
            "totals": self.totals.state_dict(),
            "method": self.method.state_dict(),
            "threads": torch.get_num_threads(),
        }

    def load_state_dict(
        self, state: dict[str, Any], *, num_epochs: int, steps_per_epoch: int
    ) -> None:
        """Restore a checkpoint's state; raises ValueError, with its path, if it does not fit."""
        source = state.get("source", "checkpoint")
        load_weights(self.model, state.get("model"), source=source)
        if self.ema is not None:
            load_weights(self.ema.module, state.get("ema"), source=f"{source} (average)")
        try:
            load_optimizer(self.optimizer, state["optimizer"])
            if self.scaler is not None:
                load_scaler(self.scaler, state["scaler"])
            self.position = Position(**_whole(state["position"]))
            self.position.check_within(num_epochs=num_epochs, steps_per_epoch=steps_per_epoch)
            self.totals = EpochTotals(**state["totals"])
            self.method.load_state_dict(state["method"])
            threads = state["threads"]
            check_number("threads", threads, at_least=1)
        except _DAMAGE as error:
            raise ValueError(
                f"{source}: damaged, or of a run with other settings ({error!r}); move it away to "
                "go on from the one before, or train into another folder"
            ) from error
        if threads != torch.get_num_threads():
            warnings.warn(
                f"the checkpoint was written on {threads} threads, this process has "
                f"{torch.get_num_threads()}: results may differ in the last bits",
                stacklevel=2,
            )


def _whole(position: dict[str, Any]) -> dict[str, Any]:
    """Return `position`; raises KeyError for a missing field, which would default to 0."""
    for item in fields(Position):
        position[item.name]
    return position


_DAMAGE = (KeyError, TypeError, AttributeError, RuntimeError, IndexError, ValueError)
