"""Fine-grained AdvProp: a branch for each source of images (Xie et al., CVPR 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from advprop.attacks.attack import Attack
from advprop.auxiliary.route import CLEAN
from advprop.methods.base import Method
from advprop.methods.learning import SeveralKinds, learn
from advprop.methods.step import (
    Context,
    StepMetrics,
    adversarial_images,
    perturbation_size,
    through,
)
from advprop.shapes import Batch, Images


@dataclass(frozen=True, kw_only=True)
class FineGrained(SeveralKinds):
    """Clean images, and each further source of images through an auxiliary branch of its own.

    `attacks` are by branch: each goes through the branch that then learns from its images. `views`
    are branches that learn from `Batch.views`, versions of the images that the loader made (by
    strong augmentation, say). The mean losses are summed. Forms as those of `AdvProp`, which this
    is where there is one attack and no view. Needs `add_auxiliary_norms(model, method.auxiliary)`.

    Raises ValueError without any source, or for a branch with two.
    """

    attacks: Mapping[str, Attack] = field(default_factory=dict)
    views: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
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

    def with_attack(self, attack: Attack) -> Method:
        """The same method with this attack in place of each."""
        return replace(self, attacks=dict.fromkeys(self.attacks, attack))

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Attack through each branch that an attack is for, then learn from all images."""
        form = self.form_for(model, context.task)
        kinds: dict[str, Images] = {CLEAN: batch.images}
        for branch, attack in self.attacks.items():
            with through(model, branch):
                kinds[branch] = adversarial_images(attack, model, batch, context)
        changes = [perturbation_size(batch.images, kinds[branch]) for branch in self.attacks]
        for branch in self.views:
            kinds[branch] = batch.view(branch)
        return learn(
            model,
            {name: Batch(images=kind, labels=batch.labels) for name, kind in kinds.items()},
            context,
            form=form,
            branches=True,
            perturbation=torch.stack(changes).mean() if changes else None,
        )
