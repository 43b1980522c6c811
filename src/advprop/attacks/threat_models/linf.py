"""Perturbations bounded value by value."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from advprop.attacks.threat_models.model import check_epsilon
from advprop.randomness import Randomness, uniform


@dataclass(frozen=True)
class Linf:
    """Perturbations that change every value of every pixel by at most `epsilon`.

    It is a fraction of the range [0, 1], such as `4 / 255`. Raises ValueError for an epsilon
    outside [0, 1].
    """

    epsilon: float

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        if self.epsilon > 1:
            raise ValueError(
                f"Linf epsilon {self.epsilon:g}: images are in [0, 1], so at most 1; "
                f"did you mean {self.epsilon:g}/255?"
            )

    def project(self, perturbation: Tensor) -> Tensor:
        """Return the perturbations, with every value clipped to at most `epsilon`."""
        return perturbation.clamp(-self.epsilon, self.epsilon)

    def random_start(self, images: Tensor, *, generator: Randomness = None) -> Tensor:
        """Return independent values, uniform in [-epsilon, epsilon], shaped as `images`."""
        unit = uniform(images, generator, purpose="random start")
        return (2 * unit - 1) * self.epsilon

    def ascent_direction(self, gradient: Tensor) -> Tensor:
        """Return the gradient's sign; zero where half precision overflowed to NaN."""
        return gradient.sign().nan_to_num(0.0)
