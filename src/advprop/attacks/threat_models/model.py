"""The interface of threat models."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from torch import Tensor

from advprop.randomness import Randomness


@runtime_checkable
class ThreatModel(Protocol):
    """A ball of perturbations around zero.

    Methods take and return tensors with one perturbation, or gradient, for each image.
    """

    @property
    def epsilon(self) -> float:
        """Return the ball's radius, as a fraction of the range [0, 1]."""
        ...

    def project(self, perturbation: Tensor) -> Tensor:
        """Return the nearest perturbations inside the ball."""
        ...

    def random_start(self, images: Tensor, *, generator: Randomness = None) -> Tensor:
        """Return perturbations drawn uniformly from the ball, shaped as `images`."""
        ...

    def ascent_direction(self, gradient: Tensor) -> Tensor:
        """Return the steps of size one that gain most, to first order; zero for a zero gradient."""
        ...


def check_epsilon(epsilon: float) -> None:
    """Raise ValueError unless `epsilon` is finite and at least 0."""
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon {epsilon}: give a number of at least 0, such as 4 / 255")
