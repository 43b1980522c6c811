"""One pass over images of all kinds, each kind through its branch in its part of the batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from advprop.methods.step import Context, KindMetrics, through
from advprop.shapes import Batch
from advprop.tasks.task import Task


def in_one_pass(
    model: nn.Module,
    kinds: Mapping[str, Batch],
    context: Context,
    weights: Mapping[str, float],
    branches: bool,
) -> dict[str, KindMetrics]:
    """Add the gradients of all kinds of images to `.grad`, by one forward and one backward pass.

    Raises ValueError if the task has only one loss for the pass, but `weights` count images of one
    kind for more than those of another.
    """
    parts, task = [*kinds.values()], context.task
    sizes, labels = [len(part) for part in parts], [part.labels for part in parts]
    # a new leaf, since torch.compile warns of inputs that may have no `.grad`
    images = torch.cat([part.images.detach() for part in parts])
    images.requires_grad_(any(part.images.requires_grad for part in parts))
    with through(model, tuple(kinds), shares=sizes, separate=branches):
        outputs = task.outputs(model, images, joined := task.join(labels))
        if task.splits:
            each = [*zip(outputs.split(sizes), labels, strict=True)]
        else:
            _check_weights_by_size(kinds, weights, task)
            each = [(outputs, joined)] * len(parts)
        losses = [task.loss(*part) for part in each]
        weighted = [weights[kind] * loss for kind, loss in zip(kinds, losses, strict=True)]
        context.backward(torch.stack(weighted).sum())
    if images.grad is not None:
        for part, gradient in zip(parts, images.grad.split(sizes), strict=True):
            part.images.grad = gradient if part.images.requires_grad else None
    return {
        kind: KindMetrics(loss=loss.detach(), metrics=task.metrics(*part))
        for kind, part, loss in zip(kinds, each, losses, strict=True)
    }


def _check_weights_by_size(
    kinds: Mapping[str, Batch], weights: Mapping[str, float], task: Task
) -> None:
    """Raise ValueError unless an image counts the same in all kinds."""
    each = [weights[kind] / len(part) for kind, part in kinds.items()]
    if max(each) - min(each) > 1e-6 * max(each):
        raise ValueError(
            f"{type(task).__name__} has one loss for a pass over all images, and the weights of "
            f"{', '.join(kinds)} for an image differ: take a form of one pass for each, such as "
            '"auto" or "separate"'
        )
