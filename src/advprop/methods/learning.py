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
from advprop.auxiliary.running import frozen_statistics
from advprop.methods import parallel
from advprop.methods.base import Method
from advprop.methods.joint import in_one_pass
from advprop.methods.step import Context, KindMetrics, StepMetrics, through, unwrapped
from advprop.randomness import mark_dropout
from advprop.shapes import Batch
from advprop.tasks.task import Task

Form: TypeAlias = Literal["auto", "separate", "joint", "summed"]
"""How several kinds of images are learnt from: see `learn`. "auto" is what the model needs."""


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
    """Add to `.grad` the gradients of the kinds' mean losses, each times its weight (None: 1).

    `form` "separate" runs a forward and a backward pass for each kind, one graph in memory at a
    time; "joint" one of each over the concatenated batch; "summed" a forward pass for each and one
    backward pass, as DistributedDataParallel needs it. With `branches` each kind goes through the
    branch of its name, else all through the active one. `matched_masks` has each kind meet the
    dropout and drop-path masks of the first one; torch's global streams then stand as after one
    pass. Images that require a gradient get it in `.grad`. `perturbation` is put into the metrics.

    Raises RuntimeError if activation checkpointing runs layers with branches again in the "summed"
    form, ValueError for matched masks under DataParallel, and for one pass of a task that has but
    one loss for it, where `weights` count images of one kind for more than those of another.
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
    """The sum of the kinds' losses times their weights: what a step minimises."""
    return torch.stack([weights[kind] * found.loss for kind, found in kinds.items()]).sum()


@dataclass(frozen=True, kw_only=True)
class SeveralKinds(Method):
    """A method that learns from several kinds of images, in a `form` that can be chosen."""

    form: Form = "auto"

    def __post_init__(self) -> None:
        known = [form for form in get_args(Form) if form != "joint" or self.one_pass]
        if self.form not in known:
            *others, last = (f'"{form}"' for form in known)
            raise ValueError(f"form={self.form!r}: choose {', '.join(others)} or {last}")

    @property
    def one_pass(self) -> bool:
        """Tells whether one pass can run all kinds of images."""
        return True

    @property
    def prefers_one_pass(self) -> bool:
        """Tells whether one pass costs no more memory, since no image comes twice in a batch."""
        return False

    def form_for(
        self, model: nn.Module, task: Task | None = None, *, distributed: bool | None = None
    ) -> Form:
        """The form of a step of `model`, where "auto" is decided.

        `distributed` tells whether DistributedDataParallel is in use (None: whether `model` is in
        it), which allows one backward pass: the form is "joint", or "summed" where a batch cannot
        be split over branches. Elsewhere it is "separate", or "joint" if the method prefers that,
        or if branches share running statistics: each kind of images by itself would be normalised
        by its own batch, and tested with statistics of all. Else a `task` that does not split its
        outputs is learnt in passes. Raises ValueError for one pass through branches under
        DataParallel.
        """
        scattered = isinstance(model, nn.DataParallel) and bool(self.auxiliary)
        if self.form == "joint" and scattered:
            parallel.refuse_scattering()
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
        """With the form that it has for `model` on several devices."""
        form = self.form_for(model, distributed=devices > 1)
        return self if devices == 1 else replace(self, form=form)

    def check_distributed(self) -> None:
        """Raises ValueError for a backward pass for each branch."""
        if self.form == "separate" and self.auxiliary:
            parallel.refuse_separate("auto, joint or summed" if self.one_pass else "auto or summed")


def recomputing(model: nn.Module) -> AbstractContextManager[None]:
    """Freeze running statistics while checkpointing runs layers again; they had the batch once."""
    return frozen_statistics(unwrapped(model))


def check_weights(weights: Sequence[float]) -> None:
    """Raise ValueError for a negative weight of a loss."""
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
    """A pass for each kind, with a backward pass each, or one at the end ("summed")."""
    task = context.task
    losses: list[Tensor] = []
    found: dict[str, KindMetrics] = {}
    for kind, part in kinds.items():
        if found and redraw is not None:
            redraw()
        if found and form == "summed":
            parallel.keep_statistics(model)
        with through(model, kind, separate=branches):
            outputs = task.outputs(model, part.images, part.labels)
            loss = task.loss(outputs, part.labels)
            if form == "summed":
                losses.append(weights[kind] * loss)
            else:
                context.backward(weights[kind] * loss)
        shown = task.metrics(outputs, part.labels)
        found[kind] = KindMetrics(loss=loss.detach(), metrics=shown)
        del outputs, loss  # and with them the graph, before the next one is made
    if losses:
        # layers that run again in this backward pass could not know whose turn it was
        with no_branch(unwrapped(model)) if branches else nullcontext():
            context.backward(torch.stack(losses).sum())
    return found


def _mark_masks(model: nn.Module, kinds: Mapping[str, Batch]) -> Callable[[], None]:
    """A function that rewinds torch's streams to here, so that the same masks are drawn again."""
    if isinstance(model, nn.DataParallel):
        parallel.refuse_matched_masks()
    return mark_dropout(next(iter(kinds.values())).images.device)
