"""How methods learn: the forward and backward passes over one or several kinds of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.branches import shares_statistics, splits_batches
from advprop.auxiliary.recomputation import no_branch
from advprop.auxiliary.running import frozen_statistics, keep_statistics
from advprop.methods.base import Method
from advprop.methods.joint import in_one_pass
from advprop.methods.step import Context, KindMetrics, StepMetrics, through, unwrapped
from advprop.randomness import mark_dropout
from advprop.shapes import Batch
from advprop.tasks.task import Task

Form: TypeAlias = Literal["auto", "separate", "joint", "summed"]
"""The passes over several kinds of images, as `learn` runs them; "auto" chooses by the model."""


def learn(
    model: nn.Module,
    kinds: Mapping[str, Batch],
    context: Context,
    *,
    form: Form = "separate",
    weights: Mapping[str, float] | None = None,
    branches: bool = False,
    matched_masks: bool = False,
    perturbation: Tensor | None = None,
) -> StepMetrics:
    """Add the gradients of the kinds' mean losses, each times its weight (None: 1), to `.grad`.

    `form` "separate" runs a forward and a backward pass for each kind, with one graph in memory at
    a time; "joint" runs one of each over the concatenated batch; "summed" runs a forward pass for
    each kind and one backward pass, which DistributedDataParallel allows. With `branches` each kind
    goes through the branch of its name; without, all go through the active one. With
    `matched_masks` each kind gets the dropout and drop-path masks of the first, and torch's global
    streams end as after one pass. Images that require a gradient get it in `.grad`. `perturbation`
    is put into the metrics.

    Raises RuntimeError if activation checkpointing runs layers with branches again in the "summed"
    form; ValueError for matched masks under DataParallel, or as `in_one_pass` in the "joint" form.
    """
    weights = dict.fromkeys(kinds, 1.0) if weights is None else weights
    torch.clear_autocast_cache()  # a method may have changed the weights since its last pass
    if form == "joint":
        found = in_one_pass(model, kinds, context, weights, branches)
    else:
        redraw = _mark_masks(model, kinds) if matched_masks else None
        found = _in_passes(model, kinds, context, weights, branches, redraw, form)
    return StepMetrics(loss=total_loss(found, weights), kinds=found, perturbation=perturbation)


def total_loss(kinds: Mapping[str, KindMetrics], weights: Mapping[str, float]) -> Tensor:
    """Return the sum of the kinds' losses times their weights, which a step minimises."""
    return torch.stack([weights[kind] * found.loss for kind, found in kinds.items()]).sum()


@dataclass(frozen=True, kw_only=True)
class SeveralKinds(Method):
    """A method that learns from several kinds of images, with a choice of `form`."""

    form: Form = "auto"

    def __post_init__(self) -> None:
        known = [form for form in get_args(Form) if form != "joint" or self.one_pass]
        if self.form not in known:
            *others, last = (f'"{form}"' for form in known)
            raise ValueError(f"form={self.form!r}: choose {', '.join(others)} or {last}")

    @property
    def one_pass(self) -> bool:
        """Return whether one pass can run all kinds of images."""
        return True

    @property
    def prefers_one_pass(self) -> bool:
        """Return whether one pass needs no more memory: no image occurs twice in a batch."""
        return False

    def form_for(
        self, model: nn.Module, task: Task | None = None, *, distributed: bool | None = None
    ) -> Form:
        """Return the form of a step of `model`, with "auto" replaced by one of the others.

        `distributed` tells whether DistributedDataParallel is in use (None: whether `model` is in
        it). It allows one backward pass, so the form is "joint", or "summed" if a batch cannot be
        split over branches. Otherwise it is "separate", or "joint" if the method prefers that or
        has no branches, or if branches share running statistics: a kind of images alone would be
        normalised by its own batch in training, but by statistics of all kinds in tests. Without
        such sharing, a `task` that does not split its outputs needs a pass for each branch. Raises
        ValueError for one pass through branches under DataParallel.
        """
        scattered = isinstance(model, nn.DataParallel) and bool(self.auxiliary)
        if self.form == "joint" and scattered:
            raise ValueError(
                'form="joint" under DataParallel, which would scatter clean and adversarial images '
                'over the wrong branches: use form="separate", or DistributedDataParallel'
            )
        if self.form != "auto":
            return self.form
        if scattered:
            return "separate"
        module = unwrapped(model)
        joint = self.one_pass
        if self.auxiliary:
            told_apart = task is None or task.splits or shares_statistics(module)
            joint = joint and told_apart and splits_batches(module)
        if isinstance(model, DistributedDataParallel) if distributed is None else distributed:
            return "joint" if joint else "summed"
        prefers = self.prefers_one_pass or not self.auxiliary
        return "joint" if joint and (prefers or shares_statistics(module)) else "separate"

    def on_devices(self, model: nn.Module, devices: int) -> Method:
        """Return the method with the form that it has for `model` on so many devices."""
        form = self.form_for(model, distributed=devices > 1)
        return self if devices == 1 else replace(self, form=form)

    def check_distributed(self) -> None:
        """Raise ValueError if each backward pass would reach one branch alone."""
        if self.form == "separate" and self.auxiliary:
            instead = "auto, joint or summed" if self.one_pass else "auto or summed"
            raise ValueError(
                'form="separate" on several processes: each backward pass reaches one branch '
                "alone, and DistributedDataParallel waits for the gradients of all; set "
                f"method.form to {instead}, or train in one process"
            )


def recomputing(model: nn.Module) -> AbstractContextManager[None]:
    """Return a context in which layers that run again do not count the batch once more."""
    return frozen_statistics(unwrapped(model))


def check_weights(weights: Sequence[float]) -> None:
    """Raise ValueError if the weight of a loss is negative."""
    if min(weights) < 0:
        raise ValueError(f"loss weights {' and '.join(map(str, weights))}: at least 0 each")


def _in_passes(
    model: nn.Module,
    kinds: Mapping[str, Batch],
    context: Context,
    weights: Mapping[str, float],
    branches: bool,
    redraw: Callable[[], None] | None,
    form: Form,
) -> dict[str, KindMetrics]:
    """Run a pass for each kind, with a backward pass each, or one at the end ("summed")."""
    task = context.task
    losses: list[Tensor] = []
    found: dict[str, KindMetrics] = {}
    for kind, part in kinds.items():
        if found and redraw is not None:
            redraw()
        if found and form == "summed":
            keep_statistics(model)
        with through(model, kind, separate=branches):
            outputs = task.outputs(model, part.images, part.labels)
            loss = task.loss(outputs, part.labels)
            if form == "summed":
                losses.append(weights[kind] * loss)
            else:
                context.backward(weights[kind] * loss)
        shown = task.metrics(outputs, part.labels)
        found[kind] = KindMetrics(loss=loss.detach(), metrics=shown)
        del outputs, loss  # frees the graph before the next one is made
    if losses:
        # a layer that checkpointing runs again here could not know its branch
        with no_branch(unwrapped(model)) if branches else nullcontext():
            context.backward(torch.stack(losses).sum())
    return found


def _mark_masks(model: nn.Module, kinds: Mapping[str, Batch]) -> Callable[[], None]:
    """Return a function that rewinds torch's streams, so that the same masks are drawn again."""
    if isinstance(model, nn.DataParallel):
        raise ValueError(
            "matched_masks under DataParallel, whose devices draw masks each for itself: use "
            "DistributedDataParallel, or matched_masks=False"
        )
    return mark_dropout(next(iter(kinds.values())).images.device)
