"""An attack on smaller copies of the images, its perturbation enlarged to fit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch.nn import functional as F

from advprop.attacks.pgd import PGD
from advprop.attacks.schedule import GrowingSteps
from advprop.randomness import Randomness
from advprop.shapes import Images, Labels, LogitsFn


def reduced_edges(edges: Sequence[int], resolution: float) -> list[int]:
    """The edges of the smaller copies of images."""
    return [max(1, round(resolution * edge)) for edge in edges]


@dataclass(frozen=True, kw_only=True)
class ReducedResolution:
    """`attack` on images of `resolution` times the edge, for models that take any size.

    The small perturbation is enlarged without interpolation, so that it stays in an Linf ball, and
    projected into the threat model again. A pass over images with a quarter of the pixels counts a
    quarter. Raises ValueError for a resolution outside (0, 1].
    """

    attack: PGD | GrowingSteps
    resolution: float

    def __post_init__(self) -> None:
        if not 0 < self.resolution <= 1:
            raise ValueError(f"resolution {self.resolution}: give one above 0 and at most 1")

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, by their share of the pixels."""
        return self.attack.passes_per_image * self.resolution**2

    def at(self, progress: float) -> ReducedResolution:
        """The attack when a share `progress` of training is done."""
        if isinstance(self.attack, PGD):
            return self
        return replace(self, attack=self.attack.at(progress))

    def __call__(
        self,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        *,
        generator: Randomness = None,
    ) -> Images:
        """Adversarial versions of `images`, detached, of their own size."""
        clean = images.detach()
        edges = reduced_edges(clean.shape[2:], self.resolution)
        if edges == list(clean.shape[2:]):
            return self.attack(logits_fn, clean, labels, generator=generator)
        small = F.interpolate(clean, edges, mode="area")
        perturbation = self.attack(logits_fn, small, labels, generator=generator) - small
        enlarged = F.interpolate(perturbation, clean.shape[2:], mode="nearest")
        return (clean + self.attack.threat_model.project(enlarged)).clamp(0.0, 1.0)
