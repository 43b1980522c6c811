"""Objectives that attacks raise: functions of images, or losses of logits by a target rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from advprop.randomness import Randomness, uniform
from advprop.shapes import Images, Labels, Logits, LogitsFn

Objective: TypeAlias = Callable[[Images], Tensor]
"""A function from images to a scalar, a sum over images, so that each gets its own gradient."""

Goal: TypeAlias = tuple[Labels, Literal[-1, 1]]
"""Labels and a sign: an attack raises the loss on these labels (+1), or lowers it (-1)."""

# Float16 gradients below 6e-8 would become zero, whose sign makes no step. A power of two does not
# change directions.
GRADIENT_SCALE = 2.0**10


def gradient_of(objective: Objective, images: Images) -> Images:
    """Return the gradient of `objective` at `images`, times 2^10; no parameter gets a `.grad`."""
    with torch.enable_grad():
        point = images.detach().requires_grad_()
        value = GRADIENT_SCALE * objective(point)
    (gradient,) = torch.autograd.grad(value, point)
    return gradient


def _cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


class TargetedLoss:
    """A loss of logits, raised or lowered as a target rule says; by default cross-entropy.

    `loss` returns a sum over images. The rule sets the goal once, at the first images that the
    attack passes.
    """

    def __init__(
        self,
        logits_fn: LogitsFn,
        labels: Labels,
        targets: TargetRule,
        generator: Randomness,
        loss: Callable[[Logits, Labels], Tensor] = _cross_entropy,
    ) -> None:
        self.logits_fn, self.labels, self.loss = logits_fn, labels, loss
        self.targets, self.generator = targets, generator
        self._goal: Goal | None = None

    def __call__(self, images: Images) -> Tensor:
        """Return the loss on the goal's labels, a scalar; negative if the attack is to lower it."""
        logits = self.logits_fn(images)
        if self._goal is None:
            self._goal = self.targets(self.labels, logits.detach(), self.generator)
        labels, sign = self._goal
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return sign * self.loss(logits, labels)


@runtime_checkable
class TargetRule(Protocol):
    """A function from an attack's labels, and the logits at its starting point, to its goal."""

    def __call__(self, labels: Labels, logits: Logits, generator: Randomness) -> Goal:
        """Return the goal."""
        ...


def untargeted(labels: Labels, logits: Logits, generator: Randomness = None) -> Goal:
    """Return the goal of a higher loss on the true labels."""
    return labels, 1


def given(labels: Labels, logits: Logits, generator: Randomness = None) -> Goal:
    """Return the goal of a lower loss on `labels`, the targets that the caller has chosen."""
    return labels, -1


def random_other_class(labels: Labels, logits: Logits, generator: Randomness = None) -> Goal:
    """Return the goal of a wrong class, drawn uniformly for each image: AdvProp's choice.

    Of soft labels (mixup, smoothing) the classes with the least weight are wrong. Raises ValueError
    for fewer than two classes, and on the CPU for labels that are none of them.
    """
    chance = uniform(torch.empty_like(logits, dtype=torch.float32), generator, purpose="target")
    return chance.masked_fill(_true_classes(labels, logits), -1.0).argmax(dim=1), -1


def least_likely_class(labels: Labels, logits: Logits, generator: Randomness = None) -> Goal:
    """Return the goal of the wrong class that is least likely at the starting point."""
    wrong = logits.masked_fill(_true_classes(labels, logits), torch.inf)
    return wrong.argmin(dim=1), -1


def _true_classes(labels: Labels, logits: Logits) -> Tensor:
    """Return for each image and class whether the label gives it more than the least weight."""
    if logits.shape[1] < 2:
        raise ValueError(f"{logits.shape[1]} class: an attack towards a wrong one needs 2 or more")
    if labels.ndim == 1:
        last = logits.shape[1] - 1
        # elsewhere the check would wait for the device
        if labels.device.type == "cpu" and (labels.clamp(0, last) != labels).any():
            raise ValueError(
                f"labels from {labels.min()} to {labels.max()}: the model has {last + 1} classes, "
                f"so labels are 0 to {last}"
            )
        return F.one_hot(labels, last + 1).bool()
    return labels > labels.amin(dim=1, keepdim=True)
