"""The attack of PyramidAT (Herrmann et al., CVPR 2022, arXiv 2111.15121)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advprop.attacks.attack import GradientAttack, check_steps
from advprop.attacks.objectives import (
    Objective,
    TargetRule,
    gradient_of,
    random_other_class,
)
from advprop.attacks.pgd import clean_images, random_starts
from advprop.attacks.scales import Scale, check_scales, scales_for
from advprop.attacks.threat_models import Linf
from advprop.randomness import Randomness, uniform
from advprop.shapes import Images


@dataclass(frozen=True, kw_only=True)
class PyramidPGD(GradientAttack):
    """PGD on a perturbation that is a sum over scales: large patches move far, pixels little.

    Each of `scales` (edges of square patches in pixels; None: a 7th and a 14th of the image's
    shorter edge, and 1) has a perturbation in an Linf ball of radius `epsilon`, which is multiplied
    by its entry in `multipliers`. Their sum is added to the image, which is clipped into [0, 1].
    Each step takes one input gradient, summed over each patch. The attack starts at random points
    of the balls with `random_start_probability` for each image, else at the image itself. The
    defaults are the paper's.

    Raises ValueError for negative steps or step size, an epsilon or probability outside [0, 1], or
    scales without a multiplier each.
    """

    epsilon: float = 6 / 255
    num_steps: int = 5
    step_size: float = 1 / 255
    scales: tuple[int, ...] | None = None
    multipliers: tuple[float, ...] = (20.0, 10.0, 1.0)
    random_start_probability: float = 0.0
    targets: TargetRule = random_other_class

    def __post_init__(self) -> None:
        Linf(self.epsilon)
        check_steps(self.num_steps, self.step_size, self.random_start_probability)
        check_scales(self.scales, self.multipliers)

    @property
    def passes_per_image(self) -> float:
        """Return the number of steps, one forward-backward pass each."""
        return float(self.num_steps)

    def maximise(
        self, objective: Objective, images: Images, *, generator: Randomness = None
    ) -> Images:
        """Return versions of `images` (in [0, 1]) that raise `objective`, as `PGD` does."""
        clean, ball = clean_images(images), Linf(self.epsilon)
        scales = scales_for(clean, self.scales, self.multipliers)
        coarse = [scale for scale in scales if scale.size > 1]
        # the scale of single pixels runs PGD around the images that the coarse scales have moved
        fine = sum(scale.multiplier for scale in scales if scale.size == 1)
        grids, base, adversarial = self._start(clean, coarse, fine, generator)
        for _ in range(self.num_steps):
            gradient = gradient_of(objective, adversarial)
            moved = adversarial + fine * self.step_size * ball.ascent_direction(gradient)
            pixels = self._clipped(moved - base, fine)
            grids = [
                ball.project(grid + self.step_size * ball.ascent_direction(scale.pool(gradient)))
                for grid, scale in zip(grids, coarse, strict=True)
            ]
            base = _moved(clean, grids, coarse)
            adversarial = (base + pixels).clamp(0.0, 1.0)
        return adversarial

    def _start(
        self, clean: Images, coarse: list[Scale], fine: float, generator: Randomness
    ) -> tuple[list[Tensor], Images, Images]:
        """Return the coarse scales' grids, the images that they move, and the first points."""
        likes = [scale.grid_like(clean) for scale in coarse]
        if self.random_start_probability == 0.0:
            return [torch.zeros_like(like) for like in likes], clean, clean.clone()
        noise = fine * Linf(self.epsilon).random_start(clean, generator=generator)
        grids = [
            self.epsilon * (2 * uniform(like, generator, purpose=f"random start {scale.size}") - 1)
            for like, scale in zip(likes, coarse, strict=True)
        ]
        if self.random_start_probability < 1.0:
            chosen = random_starts(clean, self.random_start_probability, generator)
            noise, *grids = (start.where(chosen, 0.0) for start in (noise, *grids))
        base = _moved(clean, grids, coarse)
        pixels = self._clipped(base + noise - base, fine)
        return grids, base, (base + pixels).clamp(0.0, 1.0)

    def _clipped(self, perturbation: Tensor, multiplier: float) -> Tensor:
        reach = multiplier * self.epsilon
        return perturbation.clamp(-reach, reach)


def _moved(clean: Images, grids: list[Tensor], scales: list[Scale]) -> Images:
    images = clean
    for grid, scale in zip(grids, scales, strict=True):
        images = images + scale.spread(grid, clean).to(clean.dtype)
    return images
