"""PyramidAT (Herrmann et al., CVPR 2022, arXiv 2111.15121): AdvProp for any normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.methods.base import Attacking
from advprop.methods.step import ADVERSARIAL, Context, StepMetrics, adversarial_images, through
from advprop.methods.two_passes import TwoPasses
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class Pyramid(TwoPasses, Attacking):
    """Clean and adversarial images through the same layers, in two passes with the same masks.

    `attack` is a `PyramidPGD`; a `PGD` makes it the paper's comparison by pixels. The two mean
    losses are summed. The attack does without dropout and drop-path, whose masks both passes of an
    image share. `auxiliary_branch` departs from the paper, which shares all layers.
    """

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack, then learn from both kinds of images."""
        with through(model, ADVERSARIAL, separate=self.auxiliary_branch):
            images = adversarial_images(self.attack, model, batch, context)
        return self.learn(model, batch, images, context)
