"""AdvProp (Xie et al., CVPR 2020, arXiv 1911.09665)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from advprop.attacks.pgd import Attack
from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.norm import CLEAN
from advprop.methods.adversarial import attacked
from advprop.methods.base import (
    ADVERSARIAL,
    Context,
    Method,
    StepMetrics,
    attacked_module,
    learn,
    perturbation_size,
)
from advprop.methods.forms import Form, check_form, is_joint
from advprop.methods.mixed import learn_jointly
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class AdvProp(Method):
    """Clean images through the clean branch, adversarial ones through a branch of their own.

    The attack goes through the auxiliary branch; the two mean losses are summed (with weights, 1
    each in the paper) and one optimiser step follows. `form` "separate" runs a forward and a
    backward for each kind, one graph in memory at a time; "joint" runs one over the concatenated
    batch, as DistributedDataParallel needs it; "auto" picks by that. Needs a model with
    `add_auxiliary_norms(model)`.
    """

    auxiliary: ClassVar[tuple[str, ...]] = (ADVERSARIAL,)

    attack: Attack
    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    form: Form = "auto"

    def __post_init__(self) -> None:
        check_form(self.form)
        if min(self.clean_weight, self.adversarial_weight) < 0:
            raise ValueError(
                f"loss weights {self.clean_weight} and {self.adversarial_weight}: at least 0 each"
            )

    @property
    def passes_per_image(self) -> float:
        """The attack's steps, one clean and one adversarial pass."""
        return self.attack.passes_per_image + 2

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack through the auxiliary branch, then learn through both."""
        with use_branch(attacked_module(model), ADVERSARIAL):
            images = self.attacked(model, batch, context)
        if is_joint(self.form, model):
            weights = (self.clean_weight, self.adversarial_weight)
            with use_branch(attacked_module(model), (CLEAN, ADVERSARIAL)):
                return learn_jointly(model, batch, images, context, weights=weights)
        return self._learn_separately(model, batch, images, context)

    def attacked(self, model: nn.Module, batch: Batch, context: Context) -> Images:
        """Adversarial images through the active branch."""
        return attacked(self.attack, model, batch, context)

    def _learn_separately(
        self, model: nn.Module, batch: Batch, images: Images, context: Context
    ) -> StepMetrics:
        module = attacked_module(model)
        with use_branch(module, CLEAN):
            clean = learn(model, batch.images, batch.labels, context, weight=self.clean_weight)
        with use_branch(module, ADVERSARIAL):
            adversarial = learn(
                model, images, batch.labels, context, weight=self.adversarial_weight
            )
        return StepMetrics(
            loss=self.clean_weight * clean.loss + self.adversarial_weight * adversarial.loss,
            kinds={"clean": clean, ADVERSARIAL: adversarial},
            perturbation=perturbation_size(batch.images, images),
        )
