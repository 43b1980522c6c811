"""AdvProp whose attack uses weights of an earlier step, so that it could run beside training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from advprop.methods.advprop import AdvProp
from advprop.methods.base import Context, StepMetrics, attacked_module
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class StaleAdvProp(AdvProp):
    """`AdvProp` that attacks the network as it was up to `stale_steps` optimiser steps ago.

    With 1, the attack on a batch needs nothing of the step before it: a second device could make it
    meanwhile (ConAdv, Liu et al., ICLR 2022, arXiv 2106.00221). Here it runs in its turn, which
    shows what stale weights cost in accuracy. The old weights are a copy of the network's tensors.
    With gradient accumulation the later parts of a batch attack the present ones.
    """

    stale_steps: int = 1
    _old: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.stale_steps < 1:
            raise ValueError(f"stale_steps {self.stale_steps}: give at least 1, or use AdvProp")

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """As `AdvProp`, with the old weights; then keep the present ones if it is time."""
        metrics = super().step(model, batch, context)
        if context.step % self.stale_steps == 0:
            # before the optimiser's step, so that the next attack is one step behind
            self._old.update(_tensors(attacked_module(model)))
        return metrics

    def attacked(self, model: nn.Module, batch: Batch, context: Context) -> Images:
        """Adversarial images for the old weights; for the present ones in the first step."""
        if not self._old:
            return super().attacked(model, batch, context)
        module = attacked_module(model)
        device = next(module.parameters()).device  # a checkpoint's are on the CPU
        self._old.update({name: tensor.to(device) for name, tensor in self._old.items()})
        with _holding(module, self._old):
            return super().attacked(model, batch, context)

    def state_dict(self) -> dict[str, Any]:
        """The old weights."""
        return {name: tensor.clone() for name, tensor in self._old.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Attack with the weights that `state_dict` gave. Raises ValueError for anything else."""
        if not all(isinstance(tensor, Tensor) for tensor in state.values()):
            raise ValueError(f"no weights to attack: {list(state)[:5]}")
        self._old.clear()
        self._old.update(state)


@contextmanager
def _holding(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Have the tensors of `model` hold `values`, for backward passes that run layers again too."""
    named = [*model.named_parameters(), *model.named_buffers()]
    kept = [(tensor, tensor.data) for _, tensor in named]
    try:
        for name, tensor in named:
            tensor.data = values[name]
        yield
    finally:
        for tensor, data in kept:
            tensor.data = data


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: tensor.detach().clone() for name, tensor in named}
