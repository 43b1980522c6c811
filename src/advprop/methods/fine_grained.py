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
    """Trains on clean images, and on each further source of images through a branch of its own.

    `attacks` has an attack for each branch: it runs through this branch, which then learns from its
    images. `views` names branches that learn from the entries of that name in `Batch.views`,
    versions of the images that the loader made (by strong augmentation, for instance). The mean
    losses are summed. `form` is that of `AdvProp`, which this equals with one attack and no views.
    Needs `add_auxiliary_norms(model, method.auxiliary)`.

    Raises ValueError if there is no source, or a branch has two.
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
        """Return a branch for each source."""
        return (*self.attacks, *self.views)

    @property
    def passes_per_image(self) -> float:
        """Return one pass for each kind of images, plus the attacks' passes."""
        steps = sum(attack.passes_per_image for attack in self.attacks.values())
        return 1 + len(self.auxiliary) + steps

    def with_attack(self, attack: Attack) -> Method:
        """Return the same method with `attack` in place of each of its attacks."""
        return replace(self, attacks=dict.fromkeys(self.attacks, attack))

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Run each attack through its branch, then add the gradients of all losses to `.grad`."""
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
