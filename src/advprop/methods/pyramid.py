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
    """Trains on clean and adversarial images in two passes, with the same layers and masks.

    `attack` is a `PyramidPGD`, or a `PGD` for the paper's comparison with single pixels. The two
    mean losses are summed. The attack uses no dropout and drop-path masks; both passes over an
    image use the same ones. The paper shares all layers, from which `auxiliary_branch` departs.
    """

    @property
    def passes_per_image(self) -> float:
        """Return the attack's passes plus one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack the images, then add the gradients of both mean losses to `.grad`."""
        with through(model, ADVERSARIAL, separate=self.auxiliary_branch):
            images = adversarial_images(self.attack, model, batch, context)
        return self.learn(model, batch, images, context)
