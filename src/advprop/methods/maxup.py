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
    """Of several random draws of each image, the one on which the loss is highest.

    The loader draws each image's crop, flip and augmentation `draws` times (4 as the paper's
    ImageNet runs; 10 for CIFAR). A forward pass over all of them, without gradients and with the
    model as an attack finds it, tells which to learn from; only this one is trained on (equation 1
    of the paper). A task's `losses` compare: cross-entropy without label smoothing. 1 draw is
    vanilla.
    """

    draws: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.draws <= 100:
            raise ValueError(f"draws {self.draws}: give a whole number from 1 to 100")

    @property
    def versions(self) -> Mapping[str, Redrawn]:
        """All draws but the first, which are the batch's images."""
        return {f"draw{number}": Redrawn() for number in range(2, self.draws + 1)}

    @property
    def passes_per_image(self) -> float:
        """One pass over the worst draw, and a forward pass over each, a third of a pass."""
        return (3 + self.draws) / 3 if self.draws > 1 else 1.0

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Find each image's worst draw, and learn from it."""
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
