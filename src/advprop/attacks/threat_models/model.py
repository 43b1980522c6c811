"""What every threat model is."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from torch import Tensor

from advprop.randomness import Randomness


@runtime_checkable
class ThreatModel(Protocol):
    """A ball around zero; all methods take and return one perturbation (or gradient) an image."""

    @property
    def epsilon(self) -> float:
        """The ball's radius, as a fraction of the range [0, 1]."""
        ...

    def project(self, perturbation: Tensor) -> Tensor:
        """The nearest perturbations inside the ball."""
        ...

    def random_start(self, images: Tensor, *, generator: Randomness = None) -> Tensor:
        """Perturbations drawn uniformly from the ball, shaped as `images`."""
        ...

    def ascent_direction(self, gradient: Tensor) -> Tensor:
        """Where a step of size one gains most, to first order; zero where the gradient is."""
        ...


def check_epsilon(epsilon: float) -> None:
    """Raise ValueError for a radius that no ball has."""
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise ValueError(f"epsilon {epsilon}: give a number of at least 0, such as 4 / 255")
