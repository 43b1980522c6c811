"""The whole state of a training run, which checkpoints save and which is checked when loaded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from advprop.methods.base import Method
from advprop.methods.step import StepMetrics
from advprop.training.average import WeightAverage
from advprop.training.checkpoint import load_weights
from advprop.training.position import Position, check_number


class EpochTotals:
    """Sums of the metrics of an epoch's steps; reading them waits for the device, adding does not.

    `sums` and `steps` are those of `state_dict`. Raises ValueError if they are invalid.
    """

    def __init__(self, sums: dict[str, Tensor] | None = None, steps: int = 0) -> None:
        self.sums = sums or {}
        self.steps = steps
        _check(self.sums, steps)

    def add(self, *steps: StepMetrics) -> None:
        """Add the metrics of steps, or of the parts of one step."""
        for metrics in steps:
            self.steps += 1
            for kind, numbers in metrics.kinds.items():
                self._add(f"{kind}.loss", numbers.loss)
                for name, value in numbers.metrics.items():
                    self._add(f"{kind}.{name}", value)
                if numbers.share != 1:
                    self._add(f"{kind}.share", torch.full_like(numbers.loss, numbers.share))
            if metrics.perturbation is not None:
                self._add("perturbation", metrics.perturbation)

    def means(self) -> dict[str, Any]:
        """Return the mean loss and metrics of each kind of images, and the mean perturbation.

        The means of a kind are over the steps in which it occurs. A kind that is only a part of the
        batch also has its mean `share` of it.
        """
        result: dict[str, Any] = {}
        for name, total in self.sums.items():
            if name.endswith("#"):
                continue
            kind, _, quantity = name.partition(".")
            mean = total.item() / self.sums[f"{name}#"].item()
            if quantity:
                result.setdefault(kind, {})[quantity] = mean
            else:
                result[kind] = mean
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint in the middle of an epoch."""
        return {
            "sums": {name: total.cpu() for name, total in self.sums.items()},
            "steps": self.steps,
        }

    def _add(self, name: str, value: Tensor) -> None:
        value = value.detach().float()
        for key, amount in ((name, value), (f"{name}#", torch.ones_like(value))):
            self.sums[key] = (
                self.sums[key].to(value.device) + amount if key in self.sums else amount
            )


def _check(sums: dict[str, Tensor], steps: int) -> None:
    if type(steps) is not int or steps < 0:
        raise ValueError(f"{steps!r} steps: a whole number of at least 0 is expected")
    for name, total in sums.items():
        if not isinstance(total, Tensor) or total.dim() or not total.isfinite():
            raise ValueError(f"sum {name} is {total!r}: a single finite number is expected")
        if not name.endswith("#") and not (f"{name}#" in sums and sums[f"{name}#"] > 0):
            raise ValueError(f"sum {name} has no number of steps: one above 0 is expected")


@dataclass
class TrainingState:
    """The state of a run: `ema` is the average of the weights, `scaler` the loss scale of fp16.

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
        """Return the average of the weights if there is one, else the model itself."""
        return self.model if self.ema is None else cast("nn.Module", self.ema.module)

    def update_average(self) -> None:
        """Add the current weights to the average, if there is one."""
        if self.ema is not None:
            self.ema.update(self.model, step=self.position.step)

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


def load_optimizer(optimizer: Any, state: Any) -> None:
    """Load `state` into an optimiser, or accelerate's wrapper, with the same parameters.

    Raises ValueError, KeyError, TypeError or AttributeError if it does not fit.
    """
    groups = [dict(group) for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for own, loaded in zip(groups, optimizer.param_groups, strict=True):
        for name, value in own.items():
            if isinstance(value, int | float):
                check_number(name, loaded[name])
    parameters = {p for group in optimizer.param_groups for p in group["params"]}
    for parameter, values in optimizer.state.items():
        if parameter not in parameters:
            raise ValueError(f"the optimiser has no parameter {parameter!r}")
        for name, value in values.items():
            _check_value(name, value, parameter)


def load_scaler(scaler: Any, state: Mapping[str, Any]) -> None:
    """Load `state` into a loss scale; raises the errors of `load_optimizer`, or RuntimeError."""
    for name, value in state.items():
        check_number(name, value, at_least=0)
    scaler.load_state_dict(state)


def _check_value(name: str, value: object, parameter: nn.Parameter) -> None:
    """Raise ValueError unless `value` can be an optimiser's state for `parameter`."""
    if isinstance(value, Tensor):
        shape, wanted = tuple(value.shape), tuple(parameter.shape)
        # factored moments have fewer dimensions or sizes of 1; quantised ones are tables
        fits = len(shape) < max(2, len(wanted)) or (
            len(shape) == len(wanted)
            and all(size in (1, full) for size, full in zip(shape, wanted, strict=True))
        )
        if not fits:
            raise ValueError(f"{name} has shape {shape}, its parameter {wanted}")
    elif not isinstance(value, int | float | Mapping | Sequence | None) or isinstance(value, str):
        raise ValueError(f"{name} {value!r}: a tensor or a number is expected")
