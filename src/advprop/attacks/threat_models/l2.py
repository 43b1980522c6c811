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
    """Perturbations of an image with a Euclidean length of at most `epsilon`.

    The length is over all values of the image, each a fraction of [0, 1]; an epsilon above 1 is
    usual. Raises ValueError for a negative or infinite epsilon.
    """

    epsilon: float

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)

    def project(self, perturbation: Tensor) -> Tensor:
        """Return the perturbations, those that are too long shortened to `epsilon`.

        Squares that underflow (of 1e-23 in float32) count as 0.
        """
        length = _length(perturbation)
        factor = torch.where(length > self.epsilon, self.epsilon / length, 1.0)
        return perturbation * factor.to(perturbation.dtype)

    def random_start(self, images: Tensor, *, generator: Randomness = None) -> Tensor:
        """Return perturbations drawn uniformly from the ball, shaped as `images`.

        The direction is that of normal numbers; the radius is `epsilon` times u^(1/d), for u
        uniform in [0, 1) and the d values of an image.
        """
        direction = normal(images, generator, purpose="random start")
        column = images.new_empty(len(images), *[1] * (images.ndim - 1), dtype=torch.float32)
        unit = uniform(column, generator, purpose="random radius")
        radius = self.epsilon * unit.pow(1 / math.prod(images.shape[1:]))
        return (direction * (radius / _length(direction))).to(images.dtype)

    def ascent_direction(self, gradient: Tensor) -> Tensor:
        """Return the gradient, scaled to length one for each image; zero stays zero."""
        gradient = gradient.nan_to_num(0.0)
        # divided by the largest value first, since squares in half precision under- or overflow
        largest = gradient.abs().amax(dim=_each_image(gradient), keepdim=True)
        scaled = gradient / largest.where(largest > 0, 1.0)
        return scaled / _length(scaled).clamp_min(1.0).to(gradient.dtype)


def _length(perturbation: Tensor) -> Tensor:
    """Return the Euclidean length of each image's values, at least float32, shaped to broadcast."""
    dtype = torch.promote_types(perturbation.dtype, torch.float32)
    dims = _each_image(perturbation)
    length: Tensor = torch.linalg.vector_norm(perturbation, dim=dims, keepdim=True, dtype=dtype)
    return length


def _each_image(images: Tensor) -> tuple[int, ...]:
    """Return all dimensions but the batch's."""
    return tuple(range(1, images.ndim))
