"""AdvProp (Xie et al., CVPR 2020, arXiv 1911.09665)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.auxiliary.route import CLEAN
from advprop.methods.base import Attacking
from advprop.methods.learning import SeveralKinds, check_weights, learn
from advprop.methods.step import (
    ADVERSARIAL,
    Context,
    StepMetrics,
    adversarial_images,
    perturbation_size,
    through,
)
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class AdvProp(SeveralKinds, Attacking):
    """Clean images through the clean branch, adversarial ones through a branch of their own.

    The attack goes through the auxiliary branch; the two mean losses are summed (with weights, 1
    each in the paper) and one optimiser step follows. `form` "separate" runs a forward and a
    backward for each kind, one graph in memory at a time. DistributedDataParallel allows one
    backward: "joint" runs one forward and backward over the concatenated batch, "summed" two
    forwards and one backward; "auto" picks by that, and is joint on one process too where branches
    share running statistics, if masks are not matched. `matched_masks` gives an image the same
    dropout and drop-path masks in both passes (Herrmann et al. 2022), the attack none; not in one
    joint pass. Needs a model with `add_auxiliary_norms(model)`.
    """

    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    matched_masks: bool = False

    def __post_init__(self) -> None:
        if self.form == "joint" and self.matched_masks:
            raise ValueError(
                'matched_masks with form="joint": one pass draws masks for each image of its batch '
                'once; use form="auto", or "summed" under DistributedDataParallel'
            )
        super().__post_init__()
        check_weights((self.clean_weight, self.adversarial_weight))

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """The branch of adversarial images."""
        return (ADVERSARIAL,)

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    @property
    def one_pass(self) -> bool:
        """Not with matched masks, which are those of two passes."""
        return not self.matched_masks

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack through the auxiliary branch, then learn through both."""
        form = self.form_for(model, context.task)
        with through(model, ADVERSARIAL):
            images = adversarial_images(self.attack, model, batch, context)
        return learn(
            model,
            {CLEAN: batch, ADVERSARIAL: Batch(images=images, labels=batch.labels)},
            context,
            form=form,
            weights={CLEAN: self.clean_weight, ADVERSARIAL: self.adversarial_weight},
            branches=True,
            matched_masks=self.matched_masks,
            perturbation=perturbation_size(batch.images, images),
        )
