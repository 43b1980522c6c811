"""AdvProp without an attack: each image's perturbation is carried from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from torch import nn

from advprop.attacks.pgd import check_images
from advprop.attacks.threat_models import Linf, ThreatModel
from advprop.auxiliary.route import CLEAN
from advprop.methods.attacked_fraction import (
    at_same_speed,
    check_branch_is_used,
    check_fraction,
    num_clean,
)
from advprop.methods.facts import TrainingFacts
from advprop.methods.kept.carrying import Carrying, CarryingMethod
from advprop.methods.kept.encoding import Precision, precision_for
from advprop.methods.learning import SeveralKinds, learn
from advprop.methods.step import ADVERSARIAL, Context, StepMetrics, perturbation_size, through
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True)
class Carried(CarryingMethod, SeveralKinds):
    """AdvProp without attack passes: training passes improve a stored perturbation of each image.

    An image's perturbation is stored in the frame of the whole source image, and shown with the
    crop and flip of the image's present view (`Batch.frames`). The perturbed image goes through the
    auxiliary branch or, without `auxiliary_branch`, into one batch with the clean images, as in
    `Mixed`. This pass gives the gradient with respect to the images beside the weights' gradients:
    a step of `step_size` (None: epsilon) up the loss improves the perturbation for the next epoch.

    With `pairing` "paired" each image is used clean and adversarial. With "decoupled" the last
    `attacked_fraction` of each batch is adversarial only, the others are clean only, and each
    branch's own gradients are means over the images that went through the branch. The first
    perturbation of an image is random if `start` is "random", or zero if it is "zero". Values are
    stored as int8 for `Linf`, else as float16, unless `precision` is given. `form` is that of
    `AdvProp`, except that "auto" is "joint" if decoupled, which needs no more memory than vanilla.

    Needs a call of `prepare`, and batches with `indices`. Raises ValueError for settings that are
    out of bounds or contradict each other.
    """

    needs_backward: ClassVar[bool] = True

    threat_model: ThreatModel
    step_size: float | None = None
    pairing: Literal["paired", "decoupled"] = "paired"
    attacked_fraction: float = 0.5
    auxiliary_branch: bool = True
    start: Literal["random", "zero"] = "random"
    precision: Precision | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction(self.attacked_fraction)
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                listed = " or ".join(f'"{word}"' if word else "none" for word in known)
                raise ValueError(f"{name}={value!r}: choose {listed}")
        if self.precision == "int8" and not isinstance(self.threat_model, Linf):
            raise ValueError(
                f"precision int8 for {self.threat_model}: its steps, epsilon / 127, are larger "
                'than most of the values that share a length; take "float16"'
            )
        if self.form in ("separate", "summed") and not self.auxiliary_branch:
            raise ValueError(
                f'form="{self.form}" without auxiliary_branch would normalise each kind of images '
                'by itself through the same layers: take "auto", one batch of both'
            )
        self._check_step_size()

    def _check_step_size(self) -> None:
        size, smallest = self._step_size, self.threat_model.epsilon / 127
        if not (math.isfinite(size) and size >= 0):
            raise ValueError(f"step_size {size}: give a number of at least 0")
        if self._precision == "int8" and 0 < size < smallest:
            raise ValueError(
                f"step_size {size:g} is less than perturbations in int8 can keep, epsilon / 127 = "
                f'{smallest:g}: take a larger one, or precision="float16"'
            )

    @property
    def _step_size(self) -> float:
        return self.threat_model.epsilon if self.step_size is None else self.step_size

    @property
    def _precision(self) -> Precision:
        return self.precision or precision_for(self.threat_model)

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Return the branch of adversarial images, or none without `auxiliary_branch`."""
        return (ADVERSARIAL,) if self.auxiliary_branch else ()

    @property
    def passes_per_image(self) -> float:
        """Return 2, one clean and one adversarial pass, or 1 if decoupled."""
        return 2.0 if self.pairing == "paired" else 1.0

    def prepare(self, facts: TrainingFacts) -> None:
        """Create the store of perturbations.

        Raises ValueError if the training mixes images, has several machines, or has several
        processes without a shared folder or, if decoupled, with repeated images.
        """
        several = facts.num_processes > 1 and facts.repeats > 1
        if self.pairing == "decoupled" and several:
            raise ValueError(
                f"{facts.repeats} repeats of an image in a batch, on {facts.num_processes} "
                "processes, would be clean on one and adversarial on another: set "
                'data.sampling.repeats=1, or pairing="paired"'
            )
        super().prepare(facts)

    def check_distributed(self) -> None:
        """Raise ValueError if a backward pass would give a branch no gradient."""
        if self.pairing == "decoupled":
            check_branch_is_used(self.attacked_fraction, self.auxiliary)
        super().check_distributed()

    def carrying_for(self, facts: TrainingFacts) -> Carrying:
        """Return the store, with the method's threat model, precision and start."""
        return Carrying.for_training(
            facts, self.threat_model, precision=self._precision, start=self.start
        )

    @property
    def prefers_one_pass(self) -> bool:
        """Return True if decoupled, since no image then occurs twice in a batch."""
        return self.pairing == "decoupled"

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the gradients of clean and perturbed images to `.grad`, and improve perturbations."""
        decoupled = self.pairing == "decoupled"
        if decoupled and self.attacked_fraction == 0:
            with through(model, CLEAN, separate=self.auxiliary_branch):
                return Vanilla().step(model, batch, context)
        first = num_clean(len(batch), self.attacked_fraction) if decoupled else 0
        check_images(batch.images)
        carrying = self.carrying(batch)
        perturbed = carrying.perturbed(batch, context, first=first)
        clean = (
            Batch(images=batch.images[:first], labels=batch.labels[:first]) if decoupled else batch
        )
        attacked = Batch(images=perturbed.points, labels=batch.labels[first:])
        metrics = self._learn(model, {CLEAN: clean, ADVERSARIAL: attacked}, context)
        change = perturbation_size(batch.images[first:], perturbed.points)
        carrying.carry(batch, perturbed.moved(self._step_size), context, first=first)
        return replace(metrics, perturbation=change)

    def _learn(self, model: nn.Module, kinds: Mapping[str, Batch], context: Context) -> StepMetrics:
        form, branches = self.form_for(model, context.task), self.auxiliary_branch
        if self.pairing == "paired":
            return learn(model, kinds, context, form=form, branches=branches)
        count = sum(len(part) for part in kinds.values())
        shares = {kind: len(part) / count for kind, part in kinds.items()}
        with at_same_speed(model, shares) if branches else nullcontext():
            found = learn(model, kinds, context, form=form, weights=shares, branches=branches)
        each = {kind: replace(found.kinds[kind], share=shares[kind]) for kind in kinds}
        return replace(found, kinds=each)


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "pairing": ("paired", "decoupled"),
    "start": ("random", "zero"),
    "precision": (None, "int8", "float16"),
}
