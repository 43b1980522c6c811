"""All state of a training run: what a checkpoint holds."""

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
    """Weights with their branches, optimiser, average, loss scale, the method's, and the position.

    Nothing else need be saved: everything random is a function of seed, epoch and image.
    """

    model: nn.Module
    optimizer: Any  # accelerate's wrapper of one
    ema: WeightAverage | None
    scaler: Any
    method: Method
    position: Position = field(default_factory=Position)
    totals: EpochTotals = field(default_factory=EpochTotals)

    @property
    def averaged_model(self) -> nn.Module:
        """The average of the weights where one is kept, else the model itself."""
        return self.model if self.ema is None else cast("nn.Module", self.ema.module)

    def update_average(self) -> None:
        """Count the present weights in."""
        if self.ema is not None:
            self.ema.update(self.model, step=self.position.step)

    def check_finite(self, settings: TrainingSettings) -> None:
        """Raise NotFiniteError where the weights are not, in every process alike."""
        check_finite_weights(self.model, self.position, settings)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
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
        """Go on from a checkpoint. Raises ValueError, which names it, where it does not fit."""
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
    """The same, if nothing is missing that would be 0 then."""
    for item in fields(Position):
        position[item.name]
    return position


_DAMAGE = (KeyError, TypeError, AttributeError, RuntimeError, IndexError, ValueError)
