"""MaxUp: the worst of several random views of each image (Gong et al., arXiv 2002.09024)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from advprop.auxiliary.branches import attack_mode
from advprop.auxiliary.route import CLEAN
from advprop.methods.base import Method
from advprop.methods.learning import learn
from advprop.methods.step import Context, StepMetrics, unwrapped
from advprop.shapes import Batch, Images, Redrawn


@dataclass(frozen=True, kw_only=True)
class MaxUp(Method):
    """Draws several random views of each image, and trains on the one with the highest loss.

    The loader draws each image's crop, flip and augmentation `draws` times (the paper uses 4 on
    ImageNet and 10 on CIFAR). A forward pass over all draws, without gradients and in
    `attack_mode`, finds the worst of each image; training uses it alone (equation 1 of the paper).
    Losses are compared as the task's `losses` gives them: cross-entropy without label smoothing.
    With 1 draw this is vanilla training. Raises ValueError for `draws` outside 1 to 100.
    """

    draws: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.draws <= 100:
            raise ValueError(f"draws {self.draws}: give a whole number from 1 to 100")

    @property
    def versions(self) -> Mapping[str, Redrawn]:
        """Return all draws but the first, which are the batch's own images."""
        return {f"draw{number}": Redrawn() for number in range(2, self.draws + 1)}

    @property
    def passes_per_image(self) -> float:
        """Return 1 for the worst draw, plus 1/3 for the forward pass over each draw."""
        return (3 + self.draws) / 3 if self.draws > 1 else 1.0

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Find each image's worst draw, and add the gradients of their mean loss to `.grad`."""
        if self.draws > 1:
            batch = replace(batch, images=self._worst(unwrapped(model), batch, context))
        return learn(model, {CLEAN: batch}, context)

    @torch.no_grad()
    def _worst(self, model: nn.Module, batch: Batch, context: Context) -> Images:
        task, drawn = context.task, [batch.images, *map(batch.view, self.views)]
        labels, images = task.join([batch.labels] * self.draws), torch.cat(drawn)
        with attack_mode(model, layers_only=task.needs_training_mode):
            losses = task.losses(task.outputs(model, images, labels), labels)
        worst = losses.view(self.draws, -1).argmax(dim=0)
        rows = torch.arange(len(batch), device=worst.device)
        return images[worst * len(batch) + rows]
