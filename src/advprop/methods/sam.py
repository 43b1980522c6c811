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
from advprop.methods.base import Context, Method, StepMetrics, unwrapped
from advprop.methods.learning import learn
from advprop.randomness import mark_dropout
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class SAM(Method):
    """Clean images, and the gradient at the weights nearby where their loss is highest.

    A first pass gives the batch's gradient, the weights move along it by `rho` in the L2 norm of
    all that are trained, a second pass gives the gradient to learn from (section 2 of the paper),
    and the weights move back. Both passes meet the same dropout masks; running statistics count the
    first one. `every` n-th step is of this kind, the others are ordinary ones; `rho` 0 is vanilla.
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
        """One pass, and the one before it in every n-th step."""
        return 1 + 1 / self.every if self.rho else 1.0

    @property
    def kinds_of_steps(self) -> Mapping[int, float]:
        """Step 0, and where there are steps between, the next."""
        return {0: 1.0} if self.every == 1 else {0: 1 / self.every, 1: 1 - 1 / self.every}

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Find the gradient here, and learn from the one where it leads."""
        if not self.rho or context.step % self.every:
            return learn(model, {CLEAN: batch}, context)
        with sharpened(model, batch, context, self.rho):
            return learn(model, {CLEAN: batch}, context)


@contextmanager
def sharpened(model: nn.Module, batch: Batch, context: Context, rho: float) -> Iterator[None]:
    """Move the weights inside to where the loss of `batch` nearby, within `rho`, is highest."""
    redraw = mark_dropout(batch.images.device)
    with _moved(_gradients(model, batch, context), rho), frozen_statistics(unwrapped(model)):
        redraw()
        yield


def _gradients(model: nn.Module, batch: Batch, context: Context) -> dict[nn.Parameter, Tensor]:
    """Gradients of this process's batch alone, times the loss scale; `.grad` is as found."""
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
    """Weights moved along `gradients` by `length` in all, and put back bit for bit.

    They stay where the gradients are zero or not finite, as with a loss scale that is too large.
    """
    weights = [parameter.detach() for parameter in gradients]
    kept = copies_of(weights)
    try:
        _shorten([*gradients.values()], length)
        torch._foreach_add_(weights, [*gradients.values()])
        del gradients  # their memory is the second pass's
        yield
    finally:
        torch._foreach_copy_(weights, kept)
        torch.clear_autocast_cache()  # whoever runs the model next


def _shorten(gradients: list[Tensor], length: float) -> None:
    """Scale `gradients` to the joint L2 norm `length`, or to zeros if they have no direction."""
    norms = torch._foreach_norm(gradients, 2, dtype=torch.float32)
    norm = torch.linalg.vector_norm(torch.stack(norms))
    factor = length / norm
    has_direction = norm.isfinite() & factor.isfinite()
    torch._foreach_mul_(gradients, factor)
    # products of integers, since infinity times 0 is not 0; reading the flag would wait for a GPU
    bits = [gradient.view(_BITS[gradient.itemsize]) for gradient in gradients]
    torch._foreach_mul_(bits, has_direction.to(bits[0].dtype))


_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
