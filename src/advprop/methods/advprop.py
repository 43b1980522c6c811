"""AdvProp (Xie et al., CVPR 2020, arXiv 1911.09665)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from advprop.attacks.pgd import Attack
from advprop.auxiliary.branches import splits_batches
from advprop.auxiliary.route import CLEAN
from advprop.methods.adversarial import attacked
from advprop.methods.base import (
    ADVERSARIAL,
    Context,
    Method,
    StepMetrics,
    attacked_module,
    through,
)
from advprop.methods.forms import TwoPassForm, check_form, check_one_backward, form_for
from advprop.methods.mixed import learn_jointly
from advprop.methods.passes import TwoPasses
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class AdvProp(Method):
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

    attack: Attack
    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    form: TwoPassForm = "auto"
    matched_masks: bool = False

    def __post_init__(self) -> None:
        check_form(self.form, TwoPassForm)
        if self.form == "joint" and self.matched_masks:
            raise ValueError(
                'matched_masks with form="joint": one pass draws masks for each image of its batch '
                'once; use form="auto", or "summed" under DistributedDataParallel'
            )
        self._passes()

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """The branch of adversarial images."""
        return (ADVERSARIAL,)

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    def check_distributed(self) -> None:
        """ValueError for a backward pass for each branch."""
        check_one_backward(self.form, self.auxiliary, instead="auto, joint or summed")

    def distributed_form(self, model: nn.Module) -> TwoPassForm:
        """What "auto" is for `model` under DistributedDataParallel."""
        return "joint" if splits_batches(model) and not self.matched_masks else "summed"

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack through the auxiliary branch, then learn through both."""
        passes = self._passes()
        with through(model, ADVERSARIAL):
            images = self.attacked(model, batch, context)
        several = self.distributed_form(attacked_module(model))
        if form_for(model, self.form, distributed=several) == "joint":
            with through(model, (CLEAN, ADVERSARIAL)):
                return learn_jointly(model, batch, images, context, weights=passes.weights)
        return passes.learn(model, batch, images, context)

    def attacked(self, model: nn.Module, batch: Batch, context: Context) -> Images:
        """Adversarial images through the active branch."""
        return attacked(self.attack, model, batch, context)

    def _passes(self) -> TwoPasses:
        return TwoPasses(
            weights=(self.clean_weight, self.adversarial_weight),
            auxiliary_branch=True,
            matched_masks=self.matched_masks,
            form="auto" if self.form == "joint" else self.form,
        )
