"""Perturbations in the frames of their source images, and as a batch's views show them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from advprop.attacks.threat_models import ThreatModel
from advprop.shapes import Images


class Perturbed:
    """`images`, each with a perturbation that is kept in the frame of its whole source image.

    `points` are the perturbed images, in [0, 1], a leaf of autograd's graph; once they have a
    gradient, `moved` carries it back to the sources. Clipping to [0, 1], and to the threat model
    where a view magnifies a Euclidean length, lets all of the gradient through, as PGD does: what
    is clipped now can come back.
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
        # in the layout of the images; a sum's would depend on both
        points = torch.empty_like(images).copy_(images.detach() + perturbations)
        self.points: Images = points.clamp_(0.0, 1.0).requires_grad_()

    def moved(self, step_size: float) -> Images:
        """The kept perturbations after a step up the gradient of `points`, in the threat model."""
        assert self.points.grad is not None
        gradient = self.points.grad.to(self.kept.dtype)
        if self._shown is not self.kept:
            (gradient,) = torch.autograd.grad(self._shown, self.kept, gradient)
        direction = self.threat_model.ascent_direction(gradient)
        return self.threat_model.project(self.kept.detach() + step_size * direction)


def shown(kept: Images, frames: Float[Tensor, "batch 2 3"] | None) -> Images:
    """`kept`, bilinear, at the places of the views that `frames` describe (None: as it is)."""
    if frames is None:
        return kept
    grid = _grid(frames.to(kept), *kept.shape[2:])
    with torch.enable_grad():
        # between the centres of the outermost pixels and the edge it goes on
        views: Tensor = F.grid_sample(kept, grid, padding_mode="border", align_corners=False)
    return views


def _grid(
    frames: Float[Tensor, "batch 2 3"], height: int, width: int
) -> Float[Tensor, "batch height width 2"]:
    """As torch's `affine_grid`, whose matrix product autocast and TF32 would round to pixels."""
    across, down = (
        ((2 * torch.arange(size, device=frames.device) + 1) / size - 1).to(frames)
        for size in (width, height)
    )
    by_column, by_row, shift = (part[:, None, None, :] for part in frames.unbind(dim=2))
    return across[None, None, :, None] * by_column + down[None, :, None, None] * by_row + shift
