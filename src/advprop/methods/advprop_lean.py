"""What gained most at vanilla's measured time (docs/reproducing.md, experiments 10 and 11)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from advprop.methods.base import Context, StepMetrics
from advprop.methods.carried import Carried
from advprop.methods.sam import sharpened
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class AdvPropLean(Carried):
    """`Carried` with other defaults: one pass an image, and no branch.

    A quarter of each batch is adversarial only, the rest clean only, all through the same
    layers; each image's perturbation is improved by the pass that learns from it. So a step is
    vanilla's, but for the images' gradient and the keeping of perturbations, and the model is a
    plain one. With `rho` the pass is taken at the weights that SAM's first pass leads to. The
    last `clean_end` of training, 0 to 1, has clean images alone.
    """

    pairing: Literal["paired", "decoupled"] = "decoupled"
    attacked_fraction: float = 0.25
    auxiliary_branch: bool = False
    rho: float = 0.0
    clean_end: float = 0.0

    @property
    def passes_per_image(self) -> float:
        """One pass, and the one before it that looks for the sharpest weights nearby."""
        return 2.0 if self.rho else super().passes_per_image

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """As `Carried`, or vanilla's at the end."""
        if context.progress >= 1 - self.clean_end:
            return Vanilla().step(model, batch, context)
        return super().step(model, batch, context)

    def _learn(self, model: nn.Module, kinds: Mapping[str, Batch], context: Context) -> StepMetrics:
        if not self.rho:
            return super()._learn(model, kinds, context)
        images = torch.cat([part.images.detach() for part in kinds.values()])
        labels = context.task.join([part.labels for part in kinds.values()])
        with sharpened(model, Batch(images=images, labels=labels), context, self.rho):
            return super()._learn(model, kinds, context)
