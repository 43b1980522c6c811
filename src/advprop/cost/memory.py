"""The memory of training on one device: weights, gradients, optimiser state, activations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from advprop.training.optim import build_optimizer
from advprop.training.settings import TrainingSettings


def memory_cost(
    model: nn.Module, settings: TrainingSettings, *, activations: int, devices: int
) -> dict[str, int]:
    """Return the bytes of training `model` on each of `devices`, by part, given its `activations`.

    "average" is the moving average of the weights, "half_weights" their copies in mixed precision,
    "buckets" the buffers in which DistributedDataParallel exchanges gradients. "total", the sum, is
    an upper bound, since the peaks of the parts do not coincide. Raises ValueError if the size of
    the optimiser's state cannot be determined.
    """
    weights = num_bytes([*model.parameters(), *model.buffers()])
    gradients = num_bytes(p for p in model.parameters() if p.requires_grad)
    half = settings.mixed_precision != "no"
    parts = {
        "weights": weights,
        "gradients": gradients,
        "optimizer": optimizer_bytes(model, settings),
        "average": weights if settings.ema_decay is not None else 0,
        "activations": activations,
        "half_weights": num_bytes(model.parameters()) // 2 if half else 0,
        "buckets": gradients if devices > 1 else 0,
    }
    return {**parts, "total": sum(parts.values())}


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of these tensors, each counted once."""
    distinct = {id(tensor): tensor for tensor in tensors}.values()
    return sum(tensor.numel() * tensor.element_size() for tensor in distinct)


def optimizer_bytes(model: nn.Module, settings: TrainingSettings) -> int:
    """Return the bytes of the optimiser's state after a step on `model`, on the meta device.

    An optimiser that must read values takes the step on a small CPU layer instead, and its bytes
    per byte of parameters are extrapolated to `model`. Deletes the gradients of `model`. Raises
    ValueError if the optimiser cannot take the step there either.
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
    # some optimisers keep lists of tensors for a parameter
    values = tree_leaves(list(optimizer.state.values()))
    return num_bytes(value for value in values if isinstance(value, Tensor))


class SavedTensors(saved_tensors_hooks):
    """Counts the bytes that autograd saves for the backward pass; `peak` is their maximum.

    A storage that is saved several times counts once, and those of `excluded` (a model's own
    tensors) do not count. `float_bytes`, if given, replaces the size of a floating-point number.
    """

    def __init__(self, excluded: Iterable[Tensor], *, float_bytes: int | None = None) -> None:
        self.live = self.peak = 0
        self.float_bytes = float_bytes
        self._excluded = {_key(tensor) for tensor in excluded}
        self._holders: Counter[int] = Counter()
        super().__init__(lambda tensor: _Saved(tensor, self), lambda saved: saved.tensor)

    def hold(self, tensor: Tensor) -> None:
        """Count the tensor's storage if it is new."""
        key = _key(tensor)
        if not self._holders[key]:
            self.live += self._size(tensor)
            self.peak = max(self.peak, self.live)
        self._holders[key] += 1

    def release(self, tensor: Tensor) -> None:
        """Subtract the tensor's storage when its last holder releases it."""
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
    """A tensor saved in the autograd graph; it is released when its node is deleted."""

    def __init__(self, tensor: Tensor, counter: SavedTensors) -> None:
        self.tensor, self.counter = tensor, counter
        counter.hold(tensor)

    def __del__(self) -> None:
        self.counter.release(self.tensor)


def _key(tensor: Tensor) -> int:
    # meta tensors have no data address that would identify their storage
    return int(tensor.untyped_storage()._cdata)
