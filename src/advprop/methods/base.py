"""The base classes of training methods, which turn a batch into gradients and metrics."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from advprop.attacks.attack import Attack
from advprop.auxiliary.gradients import branch_parameters
from advprop.auxiliary.recomputation import refuse_recomputation
from advprop.auxiliary.route import has_auxiliary_norms
from advprop.methods.facts import TrainingFacts
from advprop.methods.step import Context, StepMetrics, unwrapped
from advprop.shapes import Batch, Images, Labels, Version


class Method(ABC):
    """A training method. Subclasses are frozen dataclasses, whose fields are the method's settings.

    `auxiliary` names the branches that the model needs. `passes_per_image` is the number of
    forward-backward passes over each clean image, averaged over training; a step of an attack
    counts as one, a forward pass without gradients as a third. `synchronises_statistics` tells
    whether normalisation may use the images of all processes, `needs_backward` whether a step uses
    gradients of its own backward passes.
    """

    synchronises_statistics: ClassVar[bool] = True
    needs_backward: ClassVar[bool] = False

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Return the model's branches beside the clean one; most methods use none."""
        return ()

    @property
    def views(self) -> tuple[str, ...]:
        """Return the names in `Batch.views` of the image versions that the method learns from."""
        return tuple(self.versions)

    @property
    def versions(self) -> Mapping[str, Version]:
        """Return how the loader makes views by name; `data.views` defines the others."""
        return {}

    @property
    def takes_mixtures(self) -> bool:
        """Return whether images may be mixtures of two (mixup, CutMix)."""
        return True

    @property
    def kinds_of_steps(self) -> Mapping[int, float]:
        """Return step numbers that stand for all steps, with their shares; `plan` tries each."""
        return {0: 1.0}

    @property
    @abstractmethod
    def passes_per_image(self) -> float:
        """Return the mean number of passes over each image; vanilla training has 1."""

    @abstractmethod
    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the batch's gradients to `.grad`, and return metrics; restores branch and modes."""

    def prepare(self, facts: TrainingFacts) -> None:  # noqa: B027  (most do nothing)
        """Prepare a training, before its first step; raises ValueError if it is impossible."""

    def check_distributed(self) -> None:  # noqa: B027  (most can)
        """Raise ValueError if a backward pass misses parameters that processes wait for."""

    def on_devices(self, model: nn.Module, devices: int) -> Method:
        """Return the method in the form that it has for `model` on so many devices."""
        return self

    def with_attack(self, attack: Attack) -> Method:
        """Return a copy with this attack, if the method has one; the copy remembers nothing."""
        return replace(self)  # type: ignore[type-var]  # all are dataclasses

    def bytes_on_disk(self, facts: TrainingFacts) -> int:
        """Return the bytes that the method keeps in `facts.folder` in training; 0 for most."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """Return the state that the method keeps between steps, for checkpoints; {} for most."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` gave; raises ValueError if it does not fit."""
        if state:
            raise ValueError(f"{type(self).__name__} remembers nothing, but got {list(state)}")

    def forward_backward(
        self,
        model: nn.Module,
        images: Batch | Images,
        labels: Labels | Any | Context | None = None,
        context: Context | None = None,
    ) -> StepMetrics:
        """Run `step` in a user's own loop: add a batch's gradients to `.grad`, and return metrics.

        Call it as `(model, images, labels)`, with images in [0, 1], or as `(model, batch,
        context)`. The caller zeroes gradients before, and calls the optimiser after. Raises
        ValueError for a model in eval mode, TypeError for outputs that the task does not take;
        warns of branches whose parameters the optimiser does not have.
        """
        module = unwrapped(model)
        if not module.training:
            raise ValueError(
                "the model is in eval mode, in which neither dropout nor normalisation trains: "
                "call model.train() before; layers that are to keep their statistics may be in "
                "eval mode"
            )
        batch, context = _batch_and_context(module, images, labels, context)
        return self.step(model, batch, context)

    def loss(
        self,
        model: nn.Module,
        images: Batch | Images,
        labels: Labels | Any | Context | None = None,
        context: Context | None = None,
    ) -> Tensor:
        """Return the loss of one batch with its graph, a scalar, for a caller that runs `backward`.

        Arguments, errors and gradients are those of `forward_backward` in the form "joint" or
        "summed", with all graphs in memory at once. Raises ValueError if the method
        `needs_backward`; the backward pass raises RuntimeError if checkpointing runs layers with
        branches again.
        """
        if self.needs_backward:
            raise ValueError(
                f"{type(self).__name__} uses the gradients of its own backward passes, so it has "
                "no loss to call backward on: call method.forward_backward, or take a method with "
                "an attack, such as AdvProp"
            )
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
        """Return a copy of the method with this attack."""
        return replace(self, attack=attack)


def _batch_and_context(
    model: nn.Module, images: Batch | Images, labels: object, context: Context | None
) -> tuple[Batch, Context]:
    """Return a step's arguments as a batch and a context; raises TypeError if they do not fit."""
    if isinstance(labels, Context):
        labels, context = None, labels
    if isinstance(images, Batch):
        if labels is not None:
            raise TypeError("a Batch holds its labels: call (model, batch, context)")
        return images, context or Context()
    if labels is None:
        raise TypeError("labels are missing: call (model, images, labels)")
    _warn_of_unknown_branches(model)
    return Batch(images=images, labels=labels), context or Context()


def _warn_of_unknown_branches(model: nn.Module) -> None:
    """Warn if gradients of the last step are left in the branches' own parameters alone.

    The optimiser has zeroed the others' gradients, so it does not contain these parameters.
    """
    empty = [parameter.grad is None for parameter in model.parameters() if parameter.requires_grad]
    if all(empty) or not any(empty) or not has_auxiliary_norms(model):
        return
    shared, *branches = (
        [parameter.grad is not None for parameter in group if parameter.requires_grad]
        for group in branch_parameters(model).values()
    )
    left = sum(map(sum, branches))
    if left and shared and not any(shared):
        warnings.warn(
            f"gradients of the last step are left in {left} parameters of auxiliary branches, and "
            "nowhere else: an optimiser made before add_auxiliary_norms does not train them; make "
            "it from model.parameters() afterwards",
            stacklevel=4,
        )
