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
    """Trains on clean images through the clean branch, and on adversarial ones through another.

    The attack goes through the auxiliary branch. The two mean losses are summed, with weights of 1
    each in the paper, and one optimiser step follows. `form` "separate" runs a forward and a
    backward pass for each kind of images, with one graph in memory at a time.
    DistributedDataParallel allows one backward pass: "joint" runs one forward and one backward pass
    over the concatenated batch, "summed" two forward passes and one backward pass. There "auto"
    chooses one of the latter two; on one process it is "joint" if branches share running statistics
    and masks are not matched, else "separate". With `matched_masks` an image gets the same dropout
    and drop-path masks in both passes (Herrmann et al. 2022), and none in the attack; this excludes
    "joint". Needs a model with `add_auxiliary_norms(model)`. Raises ValueError for negative
    weights, or matched masks in the form "joint".
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
        """Return the branch of adversarial images."""
        return (ADVERSARIAL,)

    @property
    def passes_per_image(self) -> float:
        """Return the attack's passes plus one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    @property
    def one_pass(self) -> bool:
        """Return False with matched masks, which need two passes, else True."""
        return not self.matched_masks

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack through the auxiliary branch, then add the gradients of both losses to `.grad`."""
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
