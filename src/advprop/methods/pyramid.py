"""PyramidAT (Herrmann et al., CVPR 2022, arXiv 2111.15121): AdvProp for any normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

from advprop.attacks.pgd import Attack
from advprop.methods.adversarial import attacked
from advprop.methods.base import ADVERSARIAL, Context, Method, StepMetrics
from advprop.methods.passes import Form, TwoPasses
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class Pyramid(Method):
    """Clean and adversarial images through the same layers, in two passes with the same masks.

    `attack` is a `PyramidPGD`; a `PGD` makes it the paper's comparison by pixels. The two mean
    losses are summed, with weights. `matched_masks` has both passes of an image draw the same
    dropout and drop-path masks, which the attack does without. `auxiliary_branch` gives adversarial
    images a branch of their own, as AdvProp has it; the paper shares all layers. `form` is that of
    `TwoPasses`.
    """

    attack: Attack
    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    matched_masks: bool = True
    auxiliary_branch: bool = False
    form: Form = "auto"

    def __post_init__(self) -> None:
        self._passes()

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """The branch of adversarial images, if they have one."""
        return (ADVERSARIAL,) if self.auxiliary_branch else ()

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    @property
    def distributed_form(self) -> Literal["summed"]:
        """What "auto" is under DistributedDataParallel."""
        return "summed"

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack, then learn from both kinds of images."""
        passes = self._passes()
        with passes.branch(model, ADVERSARIAL):
            images = attacked(self.attack, model, batch, context)
        return passes.learn(model, batch, images, context)

    def _passes(self) -> TwoPasses:
        return TwoPasses(
            weights=(self.clean_weight, self.adversarial_weight),
            auxiliary_branch=self.auxiliary_branch,
            matched_masks=self.matched_masks,
            form=self.form,
        )
