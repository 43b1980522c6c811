"""Perturbations bounded by their Euclidean length."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from advprop.attacks.threat_models.model import check_epsilon
from advprop.randomness import Randomness, normal, uniform


@dataclass(frozen=True)
class L2:
    """The Euclidean length of an image's perturbation may be up to `epsilon`.

    The length is over all its values, each a fraction of [0, 1]; an epsilon above 1 is usual.
    Raises ValueError for a negative or infinite epsilon.
    """

    epsilon: float

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def project(self, perturbation: Tensor) -> Tensor:
        """Shorten what is too long; squares that underflow (float32: of 1e-23) count as 0."""
        length = _length(perturbation)
        factor = torch.where(length > self.epsilon, self.epsilon / length, 1.0)
        return perturbation * factor.to(perturbation.dtype)

    def random_start(self, images: Tensor, *, generator: Randomness = None) -> Tensor:
        """Uniform in the ball: a normal direction, the radius by the dimension's root."""
        direction = normal(images, generator, purpose="random start")
        column = images.new_empty(len(images), *[1] * (images.ndim - 1), dtype=torch.float32)
        unit = uniform(column, generator, purpose="random radius")
        radius = self.epsilon * unit.pow(1 / math.prod(images.shape[1:]))
        return (direction * (radius / _length(direction))).to(images.dtype)

    def ascent_direction(self, gradient: Tensor) -> Tensor:
        """The gradient, scaled to length one."""
        gradient = gradient.nan_to_num(0.0)
        # by the largest value first: squares of small or large half-precision numbers get lost
        largest = gradient.abs().amax(dim=_each_image(gradient), keepdim=True)
        scaled = gradient / largest.where(largest > 0, 1.0)
        return scaled / _length(scaled).clamp_min(1.0).to(gradient.dtype)


def _length(perturbation: Tensor) -> Tensor:
    """Euclidean length of each image's values, in float32 or finer, shaped to broadcast."""
    dtype = torch.promote_types(perturbation.dtype, torch.float32)
    dims = _each_image(perturbation)
    length: Tensor = torch.linalg.vector_norm(perturbation, dim=dims, keepdim=True, dtype=dtype)
    return length


def _each_image(images: Tensor) -> tuple[int, ...]:
    """All dimensions but the batch's."""
    return tuple(range(1, images.ndim))
