"""What every training method is: one function from a batch to gradients and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advprop.attacks.attack import Attack
from advprop.auxiliary.recomputation import refuse_recomputation
from advprop.methods import loop_checks
from advprop.methods.facts import TrainingFacts
from advprop.methods.step import Context, StepMetrics, unwrapped
from advprop.shapes import Batch, Images, Labels, Version


class Method(ABC):
    """A training method. Subclasses are frozen dataclasses, their own configuration.

    `auxiliary` names the branches the model needs; `passes_per_image` counts forward-backward
    calls for each clean image, an attack step counting one, averaged over training;
    `synchronises_statistics` tells whether normalisation may use those of all processes at once;
    `needs_backward` whether a step uses gradients that its own backward passes leave.
    """

    synchronises_statistics: ClassVar[bool] = True
    needs_backward: ClassVar[bool] = False
    not_deterministic: ClassVar[str | None] = None

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Branches of the model beside the clean one; most methods use none."""
        return ()

    @property
    def views(self) -> tuple[str, ...]:
        """Names in `Batch.views` of the versions of the images that it learns from."""
        return tuple(self.versions)

    @property
    def versions(self) -> Mapping[str, Version]:
        """How the loader makes those of `views` that `data.views` says nothing of."""
        return {}

    @property
    def takes_mixtures(self) -> bool:
        """Whether images may be mixtures of two (mixup, CutMix)."""
        return True

    @property
    def kinds_of_steps(self) -> Mapping[int, float]:
        """Step numbers that stand for all steps, with their shares: `plan` tries each."""
        return {0: 1.0}

    @property
    @abstractmethod
    def passes_per_image(self) -> float:
        """Cost in passes of vanilla training."""

    @abstractmethod
    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the batch's gradients to `.grad`; leave branch and modes as found."""

    def prepare(self, facts: TrainingFacts) -> None:  # noqa: B027  (most do nothing)
        """Called once before the first step; raises ValueError if it cannot train on this."""

    def check_distributed(self) -> None:  # noqa: B027  (most can)
        """Raises ValueError if a backward pass misses a parameter that processes would wait for."""

    def on_devices(self, model: nn.Module, devices: int) -> Method:
        """The same method, in the form that it has for `model` on so many devices."""
        return self

    def with_attack(self, attack: Attack) -> Method:
        """The same method with this attack, if it has one; a copy that remembers nothing."""
        return replace(self)  # type: ignore[type-var]  # all are dataclasses

    def bytes_on_disk(self, facts: TrainingFacts) -> int:
        """What the method keeps in `facts.folder` while it trains; most keep nothing."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers between steps, for a checkpoint; most remember nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises ValueError where it does not fit."""
        if state:
            raise ValueError(f"{type(self).__name__} remembers nothing, but got {list(state)}")

    def forward_backward(
        self,
        model: nn.Module,
        images: Batch | Images,
        labels: Labels | Any | Context | None = None,
        context: Context | None = None,
    ) -> StepMetrics:
        """`step` for a loop of one's own: add a batch's gradients to `.grad`, and return metrics.

        Call it as `(model, images, labels)`, images in [0, 1], or as `(model, batch, context)`. The
        caller zeroes gradients before and steps after. Raises ValueError for a model in eval mode,
        TypeError for outputs that the task does not take; warns of branches that the optimiser does
        not know of.
        """
        module = unwrapped(model)
        if not module.training:
            loop_checks.refuse_eval_mode()
        batch, context = _batch_and_context(module, images, labels, context)
        return self.step(model, batch, context)

    def loss(
        self,
        model: nn.Module,
        images: Batch | Images,
        labels: Labels | Any | Context | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """The loss of one batch with its graph, a scalar, for whoever calls `backward` himself.

        Arguments, errors and gradients are those of `forward_backward` in the form "joint" or
        "summed", with all graphs in memory at once. Raises ValueError where `needs_backward`; the
        backward pass raises RuntimeError if checkpointing runs layers with branches again.
        """
        loop_checks.check_has_loss(type(self).__name__, self.needs_backward)
        batch, context = _batch_and_context(unwrapped(model), images, labels, context)
        losses: list[Tensor] = []
        self.forward_backward(model, batch, replace(context, backward=losses.append))
        total = torch.stack(losses).sum()
        if self.auxiliary:
            refuse_recomputation(unwrapped(model), total)
        return total


@dataclass(frozen=True, kw_only=True)
class Attacking(Method):
    """A method with an attack of its own."""

    attack: Attack

    def with_attack(self, attack: Attack) -> Method:
        """The same method with this attack."""
        return replace(self, attack=attack)


def _batch_and_context(
    model: nn.Module, images: Batch | Images, labels: object, context: Context | None
) -> tuple[Batch, Context]:
    """What a step was given, in either form."""
    if isinstance(labels, Context):
        labels, context = None, labels
    if not isinstance(images, Batch) or labels is not None:
        images = loop_checks.batch_of(model, images, labels)
    return images, context or Context()
