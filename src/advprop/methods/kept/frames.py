"""Show perturbations, stored in the frames of source images, in the views of a batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from advprop.attacks.threat_models import ThreatModel
from advprop.shapes import Images


class Perturbed:
    """The `images` of a batch, with perturbations in the frames of the whole source images.

    `points` are the perturbed images, in [0, 1], a leaf of autograd's graph. Once they have a
    gradient, `moved` maps it to the source images. Values are clipped to [0, 1], and to the threat
    model if a view magnifies a Euclidean length; the gradient ignores this, as PGD's does, since a
    value that is clipped now can move back.
    """

    def __init__(
        self,
        images: Images,
        kept: Images,
        frames: Float[Tensor, "batch 2 3"] | None,
        threat_model: ThreatModel,
    ) -> None:
        self.threat_model = threat_model
        self.kept = kept.detach().requires_grad_()
        self._shown = shown(self.kept, frames)
        perturbations = threat_model.project(self._shown.detach()).to(images.dtype)
        # in the memory layout of the images; that of a sum would depend on both terms
        points = torch.empty_like(images).copy_(images.detach() + perturbations)
        self.points: Images = points.clamp_(0.0, 1.0).requires_grad_()

    def moved(self, step_size: float) -> Images:
        """Return the stored perturbations after a step up the gradient of `points`, projected."""
        assert self.points.grad is not None
        gradient = self.points.grad.to(self.kept.dtype)
        if self._shown is not self.kept:
            (gradient,) = torch.autograd.grad(self._shown, self.kept, gradient)
        direction = self.threat_model.ascent_direction(gradient)
        return self.threat_model.project(self.kept.detach() + step_size * direction)


def shown(kept: Images, frames: Float[Tensor, "batch 2 3"] | None) -> Images:
    """Return `kept` as views of these `frames` show it, bilinear; unchanged if `frames` is None."""
    if frames is None:
        return kept
    grid = _grid(frames.to(kept), *kept.shape[2:])
    with torch.enable_grad():
        # between the centres of the outermost pixels and the edge, values stay constant
        views: Tensor = F.grid_sample(kept, grid, padding_mode="border", align_corners=False)
    return views


def _grid(
    frames: Float[Tensor, "batch 2 3"], height: int, width: int
) -> Float[Tensor, "batch height width 2"]:
    """Return the sampling grid, as torch's `affine_grid`, but in full precision.

    The matrix product in torch's function loses precision under autocast and TF32.
    """
    across, down = (
        ((2 * torch.arange(size, device=frames.device) + 1) / size - 1).to(frames)
        for size in (width, height)
    )
    by_column, by_row, shift = (part[:, None, None, :] for part in frames.unbind(dim=2))
    return across[None, None, :, None] * by_column + down[None, :, None, None] * by_row + shift
