"""Fine-grained AdvProp: a branch for each source of images (Xie et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from advprop.attacks.pgd import Attack
from advprop.auxiliary.route import CLEAN
from advprop.methods.adversarial import attacked
from advprop.methods.base import (
    Context,
    Method,
    StepMetrics,
    perturbation_size,
    through,
)
from advprop.methods.forms import Form, check_form, check_one_backward, form_for
from advprop.methods.parts import learn_parts
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class FineGrained(Method):
    """Clean images, and each further source of images through an auxiliary branch of its own.

    `attacks` are by branch: each goes through the branch that then learns from its images. `views`
    are branches that learn from `Batch.views`, versions of the images that the loader made (by
    strong augmentation, say). The mean losses are summed. Forms as those of `AdvProp`, which this
    is where there is one attack and no view. Needs `add_auxiliary_norms(model, method.auxiliary)`.

    Raises ValueError without any source, or for a branch with two.
    """

    attacks: Mapping[str, Attack] = field(default_factory=dict)
    views: tuple[str, ...] = ()
    form: Form = "auto"

    def __post_init__(self) -> None:
        check_form(self.form)
        names = self.auxiliary
        if not names:
            raise ValueError("no source of images: give attacks or views by the branch's name")
        if len({CLEAN, *names}) <= len(names):
            raise ValueError(
                f"branches {', '.join(names)}: each has one source, and {CLEAN} the images as "
                "they are"
            )

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """A branch for each source."""
        return (*self.attacks, *self.views)

    @property
    def passes_per_image(self) -> float:
        """One pass for each kind of images, and the attacks' steps."""
        steps = sum(attack.passes_per_image for attack in self.attacks.values())
        return 1 + len(self.auxiliary) + steps

    def check_distributed(self) -> None:
        """ValueError for a backward pass for each branch."""
        check_one_backward(self.form, self.auxiliary, instead="auto or joint")

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack through each branch that an attack is for, then learn from all images."""
        kinds: dict[str, Images] = {CLEAN: batch.images}
        for branch, attack in self.attacks.items():
            with through(model, branch):
                kinds[branch] = attacked(attack, model, batch, context)
        for branch in self.views:
            kinds[branch] = _view(batch, branch)
        parts = {name: Batch(images=kind, labels=batch.labels) for name, kind in kinds.items()}
        weights = dict.fromkeys(parts, 1.0)
        form = form_for(model, self.form)
        metrics = learn_parts(model, parts, context, weights, form=form)
        changes = [perturbation_size(batch.images, kinds[branch]) for branch in self.attacks]
        return StepMetrics(
            loss=torch.stack([kind.loss for kind in metrics.values()]).sum(),
            kinds=metrics,
            perturbation=torch.stack(changes).mean() if changes else None,
        )


def _view(batch: Batch, branch: str) -> Images:
    if branch not in batch.views:
        known = ", ".join(batch.views) or "none"
        raise ValueError(
            f'the batch has no view "{branch}" (it has {known}): give it in Batch.views, or name '
            f"its augmentation, data.views.{branch} in a configuration"
        )
    return batch.views[branch]
