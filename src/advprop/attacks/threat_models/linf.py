"""Perturbations bounded value by value."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from advprop.attacks.threat_models.model import check_epsilon
from advprop.randomness import Randomness, uniform


@dataclass(frozen=True)
class Linf:
    """Every value of every pixel may change by up to `epsilon`, a fraction of [0, 1]: `4 / 255`.

    Raises ValueError for an epsilon outside [0, 1].
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
        """Clip every value."""
        return perturbation.clamp(-self.epsilon, self.epsilon)

    def random_start(self, images: Tensor, *, generator: Randomness = None) -> Tensor:
        """Independent and uniform in [-epsilon, epsilon] for each value."""
        unit = uniform(images, generator, purpose="random start")
        return (2 * unit - 1) * self.epsilon

    def ascent_direction(self, gradient: Tensor) -> Tensor:
        """The gradient's sign; zero where half precision overflowed to NaN."""
        return gradient.sign().nan_to_num(0.0)
