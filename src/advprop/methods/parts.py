"""Learning from several kinds of images: one pass over all of them, or one for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.branches import no_branch
from advprop.methods.base import (
    Context,
    KindMetrics,
    attacked_module,
    learn,
    learn_together,
    metrics_of,
    through,
)
from advprop.methods.forms import TwoPassForm
from advprop.shapes import Batch


def learn_parts(
    model: nn.Module,
    parts: Mapping[str, Batch],
    context: Context,
    weights: Mapping[str, float],
    *,
    form: TwoPassForm,
    through_branches: bool = True,
) -> dict[str, KindMetrics]:
    """Learn from each part, its mean loss times its weight.

    `form` "joint" runs one forward and backward pass over all of them, "summed" a forward for each
    and one backward, "separate" both for each; `through_branches` sends each part through the
    branch of its name.
    """
    if form == "summed":
        return learn_summed(model, parts, context, weights, through_branches=through_branches)
    if form == "joint":
        sizes = [len(part) for part in parts.values()]
        with through(model, tuple(parts), shares=sizes, separate=through_branches):
            found = learn_together(
                model, [*parts.values()], context, weights=[weights[kind] for kind in parts]
            )
        return dict(zip(parts, found, strict=True))
    alone = {}
    for kind, part in parts.items():
        with through(model, kind, separate=through_branches):
            alone[kind] = learn(model, part.images, part.labels, context, weight=weights[kind])
    return alone


def learn_summed(
    model: nn.Module,
    parts: Mapping[str, Batch],
    context: Context,
    weights: Mapping[str, float],
    *,
    through_branches: bool = True,
    between: Callable[[], None] = lambda: None,
) -> dict[str, KindMetrics]:
    """Learn from each part, its mean loss times its weight, as DistributedDataParallel needs it.

    `through_branches` sends each part through the branch of its name; `between` is called before
    each forward pass but the first. Raises RuntimeError where activation checkpointing would run
    layers with branches again.
    """
    losses: list[Tensor] = []
    found: dict[str, KindMetrics] = {}
    for kind, part in parts.items():
        if found:
            between()
            _keep_statistics(model)
        with through(model, kind, separate=through_branches):
            logits = model(part.images)
        loss = context.loss_fn(logits, part.labels)
        found[kind] = metrics_of(logits, part.labels, loss)
        losses.append(weights[kind] * loss)
    # layers that run again in this backward pass could not know whose turn it was
    with no_branch(attacked_module(model)) if through_branches else nullcontext():
        context.backward(torch.stack(losses).sum())
    return found


def _keep_statistics(model: nn.Module) -> None:
    """Have DistributedDataParallel broadcast no buffers before its next forward pass.

    It did so before the first one, whose backward pass would fail on their change (torch 2.6 to
    2.10, pytorch/pytorch#175024).
    """
    if isinstance(model, DistributedDataParallel):
        model.require_forward_param_sync = False
