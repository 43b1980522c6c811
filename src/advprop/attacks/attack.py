"""What every attack is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from advprop.attacks.objectives import Objective, TargetedLoss, TargetRule
from advprop.randomness import Randomness
from advprop.shapes import Images, Labels, LogitsFn


@runtime_checkable
class Attack(Protocol):
    """From clean images and labels to adversarial images."""

    @property
    def passes_per_image(self) -> float:
        """Forward-backward calls of `logits_fn` for each image."""
        ...

    def __call__(
        self,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        *,
        generator: Randomness = None,
    ) -> Images:
        """Adversarial images, detached."""
        ...


class GradientAttack(ABC):
    """An attack that asks for nothing but gradients of what it maximises."""

    targets: TargetRule

    @abstractmethod
    def maximise(
        self, objective: Objective, images: Images, *, generator: Randomness = None
    ) -> Images:
        """Versions of `images` (in [0, 1]; detached, same shape and type) that raise `objective`.

        `objective` gives a sum over images; `generator` makes the result repeatable. No parameter's
        `.grad` is touched; modes and branches are the caller's (`attack_mode`).
        """

    def __call__(
        self,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        *,
        generator: Randomness = None,
    ) -> Images:
        """`maximise` the loss of a classifier, as `targets` has it.

        `labels` are class indices or distributions.
        """
        objective = TargetedLoss(logits_fn, labels, self.targets, generator)
        return self.maximise(objective, images, generator=generator)
