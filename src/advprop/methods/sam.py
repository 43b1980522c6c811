"""Sharpness-aware minimisation (Foret et al., ICLR 2021, arXiv 2010.01412)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.route import CLEAN
from advprop.auxiliary.running import copies_of, frozen_statistics
from advprop.methods.base import Method
from advprop.methods.learning import learn
from advprop.methods.step import Context, StepMetrics, unwrapped
from advprop.randomness import mark_dropout
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class SAM(Method):
    """Trains on clean images with the gradient at the nearby weights where their loss is highest.

    A first pass gives the batch's gradient. The weights move along it by `rho`, in the L2 norm over
    all trained weights; a second pass gives the gradient to learn from (section 2 of the paper),
    and the weights move back. Both passes use the same dropout masks; only the first one counts in
    running statistics. One step in `every` is of this kind, the others are vanilla's; with `rho` 0
    all are. Raises ValueError unless `rho` is finite and at least 0, and `every` at least 1.
    """

    needs_backward: ClassVar[bool] = True

    rho: float = 0.05
    every: int = 1

    def __post_init__(self) -> None:
        if not (self.rho >= 0 and math.isfinite(self.rho)):
            raise ValueError(f"rho {self.rho}: give a finite number of at least 0")
        if self.every < 1:
            raise ValueError(f"every {self.every}: give a number of steps of at least 1")

    @property
    def passes_per_image(self) -> float:
        """Return 1, plus 1 / `every` for the first passes unless `rho` is 0."""
        return 1 + 1 / self.every if self.rho else 1.0

    @property
    def kinds_of_steps(self) -> Mapping[int, float]:
        """Return step 0 and, if `every` > 1, step 1, each with its share of all steps."""
        return {0: 1.0} if self.every == 1 else {0: 1 / self.every, 1: 1 - 1 / self.every}

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the gradient at the moved weights, or in a vanilla step the usual one, to `.grad`."""
        if not self.rho or context.step % self.every:
            return learn(model, {CLEAN: batch}, context)
        redraw = mark_dropout(batch.images.device)
        with (
            _moved(_gradients(model, batch, context), self.rho),
            frozen_statistics(unwrapped(model)),
        ):
            redraw()
            return learn(model, {CLEAN: batch}, context)


def _gradients(model: nn.Module, batch: Batch, context: Context) -> dict[nn.Parameter, Tensor]:
    """Return the gradients of this process's batch, times the loss scale; restores `.grad`."""
    trained = [parameter for parameter in unwrapped(model).parameters() if parameter.requires_grad]
    kept = [parameter.grad for parameter in trained]
    waits = model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
    try:
        for parameter in trained:
            parameter.grad = None
        with waits:
            learn(model, {CLEAN: batch}, context)
        return {parameter: parameter.grad for parameter in trained if parameter.grad is not None}
    finally:
        for parameter, gradient in zip(trained, kept, strict=True):
            parameter.grad = gradient


@contextmanager
def _moved(gradients: Mapping[nn.Parameter, Tensor], length: float) -> Iterator[None]:
    """Move the weights along `gradients`, by `length` in total; restore them exactly on exit.

    They stay in place if the gradients are zero or not finite, as with too large a loss scale. The
    gradients are overwritten.
    """
    weights = [parameter.detach() for parameter in gradients]
    kept = copies_of(weights)
    try:
        _shorten([*gradients.values()], length)
        torch._foreach_add_(weights, [*gradients.values()])
        del gradients  # leaves their memory to the second pass
        yield
    finally:
        torch._foreach_copy_(weights, kept)
        torch.clear_autocast_cache()  # autocast's copies are of the moved weights


def _shorten(gradients: list[Tensor], length: float) -> None:
    """Scale `gradients` in place to the L2 norm `length`; to zeros if they have no direction."""
    norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    factor = length / norm
    has_direction = norm.isfinite() & factor.isfinite()
    torch._foreach_mul_(gradients, factor)
    # the bits are multiplied as integers, since infinity times 0 is not 0; a branch on the flag
    # would wait for the GPU
    bits = [gradient.view(_BITS[gradient.itemsize]) for gradient in gradients]
    torch._foreach_mul_(bits, has_direction.to(bits[0].dtype))


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
