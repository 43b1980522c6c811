"""What an attack aims at: each rule turns labels into a goal, and says which way to go."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from advprop.randomness import Randomness, uniform
from advprop.shapes import Labels, Logits


@runtime_checkable
class TargetRule(Protocol):
    """From an attack's labels and the logits at its starting point to its goal.

    Returns labels and a sign: +1 raises the loss on these labels, -1 lowers it.
    """

    def __call__(
        self, labels: Labels, logits: Logits, generator: Randomness
    ) -> tuple[Labels, Literal[-1, 1]]:
        """The goal's labels, and the sign."""
        ...


def untargeted(
    labels: Labels, logits: Logits, generator: Randomness = None
) -> tuple[Labels, Literal[-1, 1]]:
    """Away from the true labels."""
    return labels, 1


def given(
    labels: Labels, logits: Logits, generator: Randomness = None
) -> tuple[Labels, Literal[-1, 1]]:
    """Towards the labels passed to the attack: the caller has chosen the targets."""
    return labels, -1


def random_other_class(
    labels: Labels, logits: Logits, generator: Randomness = None
) -> tuple[Labels, Literal[-1, 1]]:
    """Towards a wrong class drawn uniformly for each image: AdvProp's choice.

    With soft labels (mixup, smoothing) a class is wrong where none has less weight.
    """
    chance = uniform(torch.empty_like(logits, dtype=torch.float32), generator, purpose="target")
    return chance.masked_fill(_true_classes(labels, logits), -1.0).argmax(dim=1), -1


def least_likely_class(
    labels: Labels, logits: Logits, generator: Randomness = None
) -> tuple[Labels, Literal[-1, 1]]:
    """Towards the wrong class that the model holds least likely at the starting point."""
    wrong = logits.masked_fill(_true_classes(labels, logits), torch.inf)
    return wrong.argmin(dim=1), -1


def _true_classes(labels: Labels, logits: Logits) -> Tensor:
    """A boolean for each image and class: does the label give it more than the least weight?"""
    if logits.shape[1] < 2:
        raise ValueError(f"{logits.shape[1]} class: an attack towards a wrong one needs 2 or more")
    if labels.ndim == 1:
        return torch.nn.functional.one_hot(labels, logits.shape[1]).bool()
    return labels > labels.amin(dim=1, keepdim=True)
