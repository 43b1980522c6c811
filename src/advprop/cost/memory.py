"""Memory of training on one device: weights and what goes with them, and activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from advprop.training.optim import build_optimizer
from advprop.training.settings import TrainingSettings


@dataclass(frozen=True, kw_only=True)
class MemoryCost:
    """Bytes on one device.

    `average` is that of the weights, `half_weights` their copies in mixed precision, `buckets`
    what DistributedDataParallel exchanges gradients in.
    """

    weights: int
    gradients: int
    optimizer: int
    average: int
    activations: int
    half_weights: int
    buckets: int

    @property
    def total(self) -> int:
        """Their sum: an upper bound, since not all of them are largest at the same moment."""
        return sum(getattr(self, field.name) for field in fields(self))


def memory_cost(
    model: nn.Module, settings: TrainingSettings, *, activations: int, devices: int
) -> MemoryCost:
    """What training `model` holds on each of `devices`, beside `activations` bytes.

    Raises ValueError for an optimiser whose state cannot be found.
    """
    weights = num_bytes([*model.parameters(), *model.buffers()])
    gradients = num_bytes(p for p in model.parameters() if p.requires_grad)
    half = settings.mixed_precision != "no"
    return MemoryCost(
        weights=weights,
        gradients=gradients,
        optimizer=optimizer_bytes(model, settings),
        average=weights if settings.ema_decay is not None else 0,
        activations=activations,
        half_weights=num_bytes(model.parameters()) // 2 if half else 0,
        buckets=gradients if devices > 1 else 0,
    )


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of these tensors, each counted once."""
    distinct = {id(tensor): tensor for tensor in tensors}.values()
    return sum(tensor.numel() * tensor.element_size() for tensor in distinct)


def optimizer_bytes(model: nn.Module, settings: TrainingSettings) -> int:
    """Bytes of the optimiser's state after a step over `model`, on the meta device.

    An optimiser that must read numbers takes its step over a small layer on the CPU instead, and
    its bytes for each parameter are carried over. Leaves `model` without gradients.
    """
    try:
        return _state_after_a_step(model, settings)
    except RuntimeError:
        stand_in = nn.Linear(64, 64)
    plain = replace(settings, layer_decay=None)
    try:
        size = _state_after_a_step(stand_in, plain) / num_bytes(stand_in.parameters())
    except RuntimeError as error:
        raise ValueError(
            f'optimizer "{settings.optimizer}": its state cannot be found ({error}); '
            "--set training.optimizer=NAME takes another"
        ) from None
    return round(size * num_bytes(p for p in model.parameters() if p.requires_grad))


def _state_after_a_step(model: nn.Module, settings: TrainingSettings) -> int:
    optimizer = build_optimizer(model, settings)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer.step()
    finally:
        model.zero_grad(set_to_none=True)
    # some keep lists of tensors for a parameter
    values = tree_leaves(list(optimizer.state.values()))
    return num_bytes(value for value in values if isinstance(value, Tensor))


class SavedTensors(saved_tensors_hooks):
    """Counts the bytes that autograd keeps for the backward pass; `peak` is the largest sum.

    A storage counts once however often it is saved, until it is let go; those of `excluded` (a
    model's own tensors) do not count. Every floating-point number has `float_bytes`, if given.
    """

    def __init__(self, excluded: Iterable[Tensor], *, float_bytes: int | None = None) -> None:
        self.live = self.peak = 0
        self.float_bytes = float_bytes
        self._excluded = {_key(tensor) for tensor in excluded}
        self._holders: Counter[int] = Counter()
        super().__init__(lambda tensor: _Saved(tensor, self), lambda saved: saved.tensor)

    def hold(self, tensor: Tensor) -> None:
        """Count a storage, if it is new."""
        key = _key(tensor)
        if not self._holders[key]:
            self.live += self._size(tensor)
            self.peak = max(self.peak, self.live)
        self._holders[key] += 1

    def release(self, tensor: Tensor) -> None:
        """Take a storage off again with the last that held it."""
        key = _key(tensor)
        self._holders[key] -= 1
        if not self._holders[key]:
            self.live -= self._size(tensor)

    def _size(self, tensor: Tensor) -> int:
        if _key(tensor) in self._excluded:
            return 0
        size = tensor.untyped_storage().nbytes()
        if self.float_bytes is None or not tensor.is_floating_point():
            return size
        return size // tensor.element_size() * self.float_bytes


class _Saved:
    """One tensor in the graph; dies with its node."""

    def __init__(self, tensor: Tensor, counter: SavedTensors) -> None:
        self.tensor, self.counter = tensor, counter
        counter.hold(tensor)

    def __del__(self) -> None:
        self.counter.release(self.tensor)


def _key(tensor: Tensor) -> int:
    # tensors without data have no address to tell them apart
    return int(tensor.untyped_storage()._cdata)
