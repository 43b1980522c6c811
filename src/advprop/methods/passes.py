"""Clean and adversarial images in a pass of their own each, their losses summed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.route import CLEAN
from advprop.methods.base import (
    ADVERSARIAL,
    Context,
    KindMetrics,
    Method,
    StepMetrics,
    learn,
    perturbation_size,
    through,
)
from advprop.methods.forms import check_one_backward
from advprop.methods.parts import learn_summed
from advprop.randomness import mark_dropout
from advprop.shapes import Batch, Images

Form: TypeAlias = Literal["auto", "separate", "summed"]


@dataclass(frozen=True, kw_only=True)
class TwoPasses:
    """How both kinds of images are learnt from, clean ones first.

    `weights` are those of the two losses. With `auxiliary_branch` each kind goes through the branch
    of its name, else both through whichever is active. `matched_masks` has the adversarial pass
    draw the dropout and drop-path masks of the clean one again; torch's global streams then stand
    as after one pass. `form` "separate" is a forward and a backward for each kind, one graph in
    memory at a time; "summed" two forwards and one backward, as DistributedDataParallel needs it;
    "auto" picks by that.

    Raises ValueError for a form there is not, or a negative weight.
    """

    weights: tuple[float, float] = (1.0, 1.0)
    auxiliary_branch: bool = False
    matched_masks: bool = False
    form: Form = "auto"

    def __post_init__(self) -> None:
        if self.form not in ("auto", "separate", "summed"):
            raise ValueError(f'form={self.form!r}: choose "auto", "separate" or "summed"')
        if min(self.weights) < 0:
            raise ValueError(
                f"loss weights {self.weights[0]} and {self.weights[1]}: at least 0 each"
            )

    def learn(
        self, model: nn.Module, batch: Batch, adversarial: Images, context: Context
    ) -> StepMetrics:
        """Leave the gradients of both losses in `.grad`."""
        distributed = isinstance(model, DistributedDataParallel)
        summed = self.form == "summed" or (self.form == "auto" and distributed)
        run = self._summed if summed else self._separate
        clean, other = run(model, batch, adversarial, context)
        return StepMetrics(
            loss=self.weights[0] * clean.loss + self.weights[1] * other.loss,
            kinds={CLEAN: clean, ADVERSARIAL: other},
            perturbation=perturbation_size(batch.images, adversarial.detach()),
        )

    def _separate(
        self, model: nn.Module, batch: Batch, adversarial: Images, context: Context
    ) -> tuple[KindMetrics, KindMetrics]:
        redraw = self._mark_masks(model, batch)
        with through(model, CLEAN, separate=self.auxiliary_branch):
            clean = learn(model, batch.images, batch.labels, context, weight=self.weights[0])
        redraw()
        with through(model, ADVERSARIAL, separate=self.auxiliary_branch):
            other = learn(model, adversarial, batch.labels, context, weight=self.weights[1])
        return clean, other

    def _summed(
        self, model: nn.Module, batch: Batch, adversarial: Images, context: Context
    ) -> tuple[KindMetrics, KindMetrics]:
        parts = {CLEAN: batch, ADVERSARIAL: Batch(images=adversarial, labels=batch.labels)}
        found = learn_summed(
            model,
            parts,
            context,
            dict(zip(parts, self.weights, strict=True)),
            through_branches=self.auxiliary_branch,
            between=self._mark_masks(model, batch),
        )
        return found[CLEAN], found[ADVERSARIAL]

    def _mark_masks(self, model: nn.Module, batch: Batch) -> Callable[[], None]:
        """A function that has the masks from here on drawn again, where they are to be."""
        if not self.matched_masks:
            return lambda: None
        if isinstance(model, nn.DataParallel):
            raise ValueError(
                "matched_masks under DataParallel, whose devices draw masks each for itself: use "
                "DistributedDataParallel, or matched_masks=False"
            )
        return mark_dropout(batch.images.device)


@dataclass(frozen=True, kw_only=True)
class TwoPassMethod(Method):
    """What methods that learn by `TwoPasses` have in common; its settings are explained there."""

    clean_weight: float = 1.0
    adversarial_weight: float = 1.0
    matched_masks: bool = True
    auxiliary_branch: bool = False
    form: Form = "auto"

    def __post_init__(self) -> None:
        self.passes()

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """The branch of adversarial images, if they have one."""
        return (ADVERSARIAL,) if self.auxiliary_branch else ()

    def check_distributed(self) -> None:
        """ValueError for a backward pass for each branch."""
        check_one_backward(self.form, self.auxiliary, instead="auto or summed")

    def distributed_form(self, model: nn.Module) -> Form:
        """What "auto" is for `model` under DistributedDataParallel."""
        return "summed"

    def passes(self) -> TwoPasses:
        """The passes that these settings make."""
        return TwoPasses(
            weights=(self.clean_weight, self.adversarial_weight),
            auxiliary_branch=self.auxiliary_branch,
            matched_masks=self.matched_masks,
            form=self.form,
        )
