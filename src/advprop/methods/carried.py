"""AdvProp without an attack: each image's perturbation is carried from epoch to epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import nn

from advprop.attacks.pgd import check_images
from advprop.auxiliary.branches import scaled_gradients
from advprop.auxiliary.route import CLEAN
from advprop.methods.base import (
    ADVERSARIAL,
    Context,
    StepMetrics,
    TrainingFacts,
    attacked_module,
    perturbation_size,
    through,
)
from advprop.methods.carrying import Carrying, CarryingMethod
from advprop.methods.decoupled import check_attacked, check_attacked_fraction, num_clean
from advprop.methods.forms import Form, TwoPassForm, check_form, check_one_backward, form_for
from advprop.methods.mixed import learn_jointly
from advprop.methods.parts import learn_parts
from advprop.methods.passes import TwoPasses
from advprop.methods.perturbation_store import Precision, precision_for
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch, Images
from advprop.threat_models import Linf, ThreatModel


@dataclass(frozen=True, kw_only=True)
class Carried(CarryingMethod):
    """AdvProp on perturbations that the training passes themselves improve, epoch after epoch.

    Each image's perturbation is kept in the frame of the whole image, shown as its present view has
    it (`Batch.frames`), and learnt from through the auxiliary branch, or, without
    `auxiliary_branch`, in one batch with the clean images, as `Mixed` does. That pass's gradient
    with respect to the images gives, beside the weights' gradients, one step of `step_size` (None:
    epsilon) up the loss, for the image's next epoch. `pairing` "paired" learns from each image
    clean and adversarial; "decoupled" from the last `attacked_fraction` of each batch adversarial
    only and from the others clean only, each branch's own gradients over the images that it saw. An
    image's first perturbation is a "random" `start`, or "zero". Kept values are int8 for `Linf`,
    else float16, unless `precision` says so. `form` is AdvProp's, but that "auto" is joint if
    decoupled, which needs no more memory than vanilla.

    Needs `prepare`, and batches with `indices`.
    """

    threat_model: ThreatModel
    step_size: float | None = None
    pairing: Literal["paired", "decoupled"] = "paired"
    attacked_fraction: float = 0.5
    auxiliary_branch: bool = True
    start: Literal["random", "zero"] = "random"
    precision: Precision | None = None
    form: Form = "auto"

    def __post_init__(self) -> None:
        check_form(self.form)
        check_attacked_fraction(self.attacked_fraction)
        for name, known in _CHOICES.items():
            if (value := getattr(self, name)) not in known:
                listed = " or ".join(f'"{word}"' if word else "none" for word in known)
                raise ValueError(f"{name}={value!r}: choose {listed}")
        if self.precision == "int8" and not isinstance(self.threat_model, Linf):
            raise ValueError(
                f"precision int8 for {self.threat_model}: its steps, epsilon / 127, are larger "
                'than most of the values that share a length; take "float16"'
            )
        if self.form == "separate" and not self.auxiliary_branch:
            raise ValueError(
                'form="separate" without auxiliary_branch would normalise each kind of images by '
                'itself through the same layers: take "auto", one batch of both'
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
        """The branch of adversarial images, if they have one."""
        return (ADVERSARIAL,) if self.auxiliary_branch else ()

    @property
    def passes_per_image(self) -> float:
        """One clean and one adversarial pass, or one of the two."""
        return 2.0 if self.pairing == "paired" else 1.0

    def prepare(self, facts: TrainingFacts) -> None:
        """Keep perturbations for all images, where one process sees all copies of each."""
        several = facts.num_processes > 1 and facts.repeats > 1
        if self.pairing == "decoupled" and several:
            raise ValueError(
                f"{facts.repeats} repeats of an image in a batch, on {facts.num_processes} "
                "processes, would be clean on one and adversarial on another: set "
                'data.sampling.repeats=1, or pairing="paired"'
            )
        super().prepare(facts)

    def check_distributed(self) -> None:
        """ValueError for a backward pass for each branch, or one that no attacked image is in."""
        if self.pairing == "decoupled":
            check_attacked(self.attacked_fraction, self.auxiliary)
        check_one_backward(self.form, self.auxiliary, instead="auto or joint")

    def carrying_for(self, facts: TrainingFacts) -> Carrying:
        """In the method's threat model, precision and start."""
        return Carrying.for_training(
            facts, self.threat_model, precision=self._precision, start=self.start
        )

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Learn from clean images, and from images with what they carry, which moves on."""
        learn, first = self._learn_paired, 0
        if self.pairing == "decoupled":
            if self.attacked_fraction == 0:
                with through(model, CLEAN, separate=self.auxiliary_branch):
                    return Vanilla().step(model, batch, context)
            learn, first = self._learn_decoupled, num_clean(len(batch), self.attacked_fraction)
        check_images(batch.images)
        carrying = self.carrying(batch)
        perturbed = carrying.perturbed(batch, context, first=first)
        metrics = learn(model, batch, perturbed.points, context)
        carrying.carry(batch, perturbed.moved(self._step_size), context, first=first)
        return metrics

    def _learn_paired(
        self, model: nn.Module, batch: Batch, images: Images, context: Context
    ) -> StepMetrics:
        form = self._form(model)
        if form == "joint":
            with through(model, (CLEAN, ADVERSARIAL), separate=self.auxiliary_branch):
                return learn_jointly(model, batch, images, context)
        passes = TwoPasses(auxiliary_branch=True, form=form)
        return passes.learn(model, batch, images, context)

    def _learn_decoupled(
        self, model: nn.Module, batch: Batch, images: Images, context: Context
    ) -> StepMetrics:
        first = len(batch) - len(images)
        parts = {
            CLEAN: Batch(images=batch.images[:first], labels=batch.labels[:first]),
            ADVERSARIAL: Batch(images=images, labels=batch.labels[first:]),
        }
        shares = {branch: len(part) / len(batch) for branch, part in parts.items()}
        form = self._form(model)
        with self._update_speeds(model, shares):
            found = learn_parts(
                model, parts, context, shares, form=form, through_branches=self.auxiliary_branch
            )
        return StepMetrics(
            loss=torch.stack([shares[kind] * found[kind].loss for kind in found]).sum(),
            kinds={kind: replace(found[kind], share=shares[kind]) for kind in found},
            perturbation=perturbation_size(batch.images[first:], images),
        )

    def _form(self, model: nn.Module) -> TwoPassForm:
        if not self.auxiliary_branch:
            return "joint"
        return form_for(model, self.form, prefers_joint=self.pairing == "decoupled")

    def _update_speeds(
        self, model: nn.Module, shares: Mapping[str, float]
    ) -> AbstractContextManager[None]:
        """Bring the gradients of each branch's own parameters to the size of the others."""
        if not self.auxiliary_branch:
            return nullcontext()
        factors = {branch: 1 / share for branch, share in shares.items()}
        return scaled_gradients(attacked_module(model), factors)


_CHOICES: dict[str, tuple[str | None, ...]] = {
    "pairing": ("paired", "decoupled"),
    "start": ("random", "zero"),
    "precision": (None, "int8", "float16"),
}
