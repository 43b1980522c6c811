"""What an attack raises: any function of images, or a loss on logits by a target rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional as F

from advprop.randomness import Randomness, uniform
from advprop.shapes import Images, Labels, Logits, LogitsFn

Objective: TypeAlias = Callable[[Images], Tensor]
"""From images to one number: a sum over images, so that none depends on its batch."""

Goal: TypeAlias = tuple[Labels, Literal[-1, 1]]
"""Labels and a sign: an attack raises the loss on these labels (+1), or lowers it (-1)."""

# Float16 gradients below 6e-8 become zero, and a sign of zero is no step. A power of two changes
# no direction.
GRADIENT_SCALE = 2.0**10


def gradient_of(objective: Objective, images: Images) -> Images:
    """Gradient of `objective` with respect to `images`, times 2^10; no parameter gets a `.grad`."""
    with torch.enable_grad():
        point = images.detach().requires_grad_()
        value = GRADIENT_SCALE * objective(point)
    (gradient,) = torch.autograd.grad(value, point)
    return gradient


def _cross_entropy(logits: Logits, labels: Labels) -> Tensor:
    return F.cross_entropy(logits, labels, reduction="sum")


class TargetedLoss:
    """A loss on logits in the direction that a target rule gives; cross-entropy, if not another.

    `loss` is a sum over images. The rule sets the goal once, at the first images that the attack
    asks about.
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
        """The loss on the goal's labels, negative if the attack is to lower it."""
        logits = self.logits_fn(images)
        if self._goal is None:
            self._goal = self.targets(self.labels, logits.detach(), self.generator)
        labels, sign = self._goal
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return sign * self.loss(logits, labels)


@runtime_checkable
class TargetRule(Protocol):
    """From an attack's labels and the logits at its starting point to its goal."""

    def __call__(self, labels: Labels, logits: Logits, generator: Randomness) -> Goal:
        """Return the goal."""
        ...


def untargeted(labels: Labels, logits: Logits, generator: Randomness = None) -> Goal:
    """Away from the true labels."""
    return labels, 1


def given(labels: Labels, logits: Logits, generator: Randomness = None) -> Goal:
    """Towards the labels passed to the attack: the caller has chosen the targets."""
    return labels, -1


def random_other_class(labels: Labels, logits: Logits, generator: Randomness = None) -> Goal:
    """Towards a wrong class drawn uniformly for each image: AdvProp's choice.

    With soft labels (mixup, smoothing) a class is wrong where none has less weight.
    """
    chance = uniform(torch.empty_like(logits, dtype=torch.float32), generator, purpose="target")
    return chance.masked_fill(_true_classes(labels, logits), -1.0).argmax(dim=1), -1


def least_likely_class(labels: Labels, logits: Logits, generator: Randomness = None) -> Goal:
    """Towards the wrong class that the model holds least likely at the starting point."""
    wrong = logits.masked_fill(_true_classes(labels, logits), torch.inf)
    return wrong.argmin(dim=1), -1


def _true_classes(labels: Labels, logits: Logits) -> Tensor:
    """Tells for each image and class whether the label gives it more than the least weight."""
    if logits.shape[1] < 2:
        raise ValueError(f"{logits.shape[1]} class: an attack towards a wrong one needs 2 or more")
    if labels.ndim == 1:
        return F.one_hot(labels, logits.shape[1]).bool()
    return labels > labels.amin(dim=1, keepdim=True)
