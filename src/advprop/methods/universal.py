"""Universal pyramid training (Chiang et al. 2023, arXiv 2312.16339): one perturbation for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from advprop.attacks.attack import check_steps
from advprop.attacks.pgd import check_images
from advprop.attacks.scales import Scale, check_scales, scales_for
from advprop.attacks.threat_models import Linf
from advprop.methods.step import Context, StepMetrics
from advprop.methods.two_passes import TwoPasses
from advprop.randomness import generator_for, uniform
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class Universal(TwoPasses):
    """Trains on clean images, and on the same images under one perturbation for the whole data set.

    The perturbation is a sum over `scales`, each in an Linf ball of radius `epsilon` and multiplied
    by its entry in `multipliers`, as in `PyramidPGD` (`scales=(1,), multipliers=(1.0,)`: plain
    pixels). There is no attack pass: the adversarial pass also gives the gradient with respect to
    its images, which is summed over the batch and all processes, and moves the perturbation one
    step of `step_size` up the loss. With gradient accumulation, each part of a batch makes a step.
    The perturbation begins at zero or, with `random_start`, at a random point of its balls, which
    depends on `start_seed` alone. The method remembers it, and checkpoints save it;
    `dataclasses.replace` gives a method that remembers nothing.

    Raises ValueError for settings that `PyramidPGD` rejects.
    """

    needs_backward: ClassVar[bool] = True

    epsilon: float
    step_size: float
    scales: tuple[int, ...] | None = None
    multipliers: tuple[float, ...] = (20.0, 10.0, 1.0)
    random_start: bool = False
    start_seed: int = 0
    memory: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Linf(self.epsilon)
        check_steps(0, self.step_size, 0.0)
        check_scales(self.scales, self.multipliers)
        super().__post_init__()

    @property
    def passes_per_image(self) -> float:
        """Return 2: one clean pass, and one adversarial pass, which also attacks."""
        return 2.0

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the gradients of both mean losses to `.grad`, then move the perturbation."""
        check_images(batch.images)
        scales = scales_for(batch.images, self.scales, self.multipliers)
        grids = self._recall(scales, batch.images)
        images = _perturbed(batch.images, grids, scales).requires_grad_()
        metrics = self.learn(model, batch, images, context)
        gradient = _summed(images, model)
        ball = Linf(self.epsilon)
        for grid, scale in zip(grids, scales, strict=True):
            direction = ball.ascent_direction(scale.pool(gradient)).to(grid.dtype)
            self.memory[scale.size] = ball.project(grid + self.step_size * direction)
        return metrics

    def state_dict(self) -> dict[str, Any]:
        """Return the perturbation by scale, or {} before the first step."""
        return {"perturbation": dict(self.memory)} if self.memory else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the perturbation of `state_dict`; raises ValueError for another state."""
        found = state.get("perturbation", {})
        is_one = isinstance(found, dict) and all(
            isinstance(size, int) and isinstance(grid, Tensor) and bool(grid.isfinite().all())
            for size, grid in found.items()
        )
        if not is_one or state.keys() - {"perturbation"}:
            raise ValueError(f"no state of a universal perturbation: it has {list(state)}")
        self.memory.clear()
        self.memory.update(found)

    def _recall(self, scales: tuple[Scale, ...], images: Images) -> list[Tensor]:
        """Return the present perturbation, one grid for each scale; or at the first call its start.

        Raises ValueError if the perturbation has another size than `images` need.
        """
        likes = [scale.grid_like(images[:1]) for scale in scales]
        if not self.memory:
            return [self._start(like, scale) for like, scale in zip(likes, scales, strict=True)]
        known = {size: tuple(grid.shape[1:]) for size, grid in self.memory.items()}
        wanted = {
            scale.size: tuple(like.shape[1:]) for like, scale in zip(likes, scales, strict=True)
        }
        if known != wanted:
            raise ValueError(
                f"the universal perturbation has, by scale, {known}, these images need {wanted}: "
                "it fits images of one size; use another Universal for others"
            )
        return [self.memory[scale.size].to(images.device) for scale in scales]

    def _start(self, like: Tensor, scale: Scale) -> Tensor:
        if not self.random_start:
            return torch.zeros_like(like)
        # so that all processes start at the same point, whatever images they have
        generator = generator_for(self.start_seed, "universal perturbation", scale.size)
        return self.epsilon * (2 * uniform(like, generator, purpose="random start") - 1)


def _perturbed(images: Images, grids: list[Tensor], scales: tuple[Scale, ...]) -> Images:
    adversarial = images.detach()
    for grid, scale in zip(grids, scales, strict=True):
        adversarial = adversarial + scale.spread(grid, images).to(images.dtype)
    return adversarial.clamp(0.0, 1.0)


def _summed(images: Images, model: nn.Module) -> Tensor:
    """Return the gradient of `images`, summed over the batch and all processes."""
    assert images.grad is not None
    wide = torch.promote_types(images.dtype, torch.float32)
    total = images.grad.nan_to_num(0.0).sum(dim=0, keepdim=True, dtype=wide)
    if isinstance(model, DistributedDataParallel):
        distributed.all_reduce(total, group=model.process_group)
    return total
