"""The interface of attacks, and the base class of attacks by gradients."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

from advprop.attacks.objectives import Objective, TargetedLoss, TargetRule
from advprop.randomness import Randomness
from advprop.shapes import Images, Labels, LogitsFn


@runtime_checkable
class Attack(Protocol):
    """A function from clean images and labels to adversarial images."""

    @property
    def passes_per_image(self) -> float:
        """Return the number of forward-backward passes of `logits_fn` for each image."""
        ...

    def __call__(
        self,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        *,
        generator: Randomness = None,
    ) -> Images:
        """Return adversarial versions of `images`, in [0, 1], detached, of the same shape."""
        ...


class GradientAttack(ABC):
    """An attack that needs only gradients of the objective that it maximises."""

    targets: TargetRule

    @abstractmethod
    def maximise(
        self, objective: Objective, images: Images, *, generator: Randomness = None
    ) -> Images:
        """Return versions of `images` that raise `objective`.

        Images are in [0, 1], before and after; the result is detached, of the same shape and type.
        `objective` returns a sum over images. `generator` makes the result repeatable. No
        parameter's `.grad` is changed; the caller sets modes and branches (`attack_mode`).
        """

    def __call__(
        self,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        *,
        generator: Randomness = None,
    ) -> Images:
        """Return versions of `images` that raise or lower a classifier's loss, as `targets` says.

        `labels` are class indices or distributions over classes.
        """
        objective = TargetedLoss(logits_fn, labels, self.targets, generator)
        return self.maximise(objective, images, generator=generator)


def by_gradients(attack: Attack) -> GradientAttack:
    """Return `attack`; raises ValueError unless it can raise any objective."""
    if isinstance(attack, GradientAttack):
        return attack
    raise ValueError(
        f"attack {type(attack).__name__}: it chooses what it raises, and the method has an "
        "objective of its own; give a GradientAttack, such as advprop.PGD"
    )


def check_steps(num_steps: float, step_size: float, random_start_probability: float) -> None:
    """Raise ValueError for a negative number or size of steps, or an impossible probability."""
    if not isinstance(num_steps, int) or num_steps < 0:
        raise ValueError(f"num_steps {num_steps}: give a whole number of at least 0")
    if not (math.isfinite(step_size) and step_size >= 0):
        raise ValueError(f"step_size {step_size}: give a number of at least 0")
    if not 0 <= random_start_probability <= 1:
        raise ValueError(f"random_start_probability {random_start_probability}: give one in [0, 1]")
