"""What every training method is: one function from a batch to gradients and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import InitVar, dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from advprop.attacks.attack import Attack
from advprop.attacks.schedule import Scheduled
from advprop.auxiliary.branches import attack_mode, use_branch
from advprop.auxiliary.recomputation import refuse_recomputation
from advprop.methods import loop_checks
from advprop.methods.facts import TrainingFacts
from advprop.randomness import Randomness
from advprop.shapes import Batch, Images, Labels, Version
from advprop.tasks.task import Classification, LossFn, Task

ADVERSARIAL = "adversarial"
"""The auxiliary branch of AdvProp, and the name of its images in metrics."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Facts about the training around a step.

    `progress` is the share of training done, 0 to 1, `epoch` the number of the epoch, from 0, where
    it is known; `task` says what is learnt, and `loss_fn` is short for a `Classification` with it;
    `backward` stands for `Tensor.backward` where gradients are scaled; `generator` makes attacks
    repeatable.
    """

    progress: float = 0.0
    step: int = 0
    epoch: int | None = None
    task: Task = field(default_factory=Classification)
    loss_fn: InitVar[LossFn | None] = None
    backward: Callable[[Tensor], None] = Tensor.backward
    generator: Randomness = None

    def __post_init__(self, loss_fn: LossFn | None) -> None:
        if loss_fn is not None:
            object.__setattr__(self, "task", Classification(loss_fn))


@dataclass(frozen=True, kw_only=True)
class KindMetrics:
    """Mean loss and the task's metrics over one kind of images, as tensors: reading them may wait.

    `share` is the share of the batch that they were taken over.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]
    share: float = 1.0

    @property
    def accuracy(self) -> Tensor:
        """That of classes or of several labels; raises KeyError for another task."""
        return self.metrics["accuracy"]


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """Metrics of one step by kind of images ("clean", "noise", "adversarial").

    `loss` is what was minimised. `perturbation` is the mean size of the change in a pixel's
    value, None for methods without an attack.
    """

    loss: Tensor
    kinds: Mapping[str, KindMetrics]
    perturbation: Tensor | None = None


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
        """Add one batch's gradients to `.grad`, and return metrics.

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


def adversarial_images(attack: Attack, model: nn.Module, batch: Batch, context: Context) -> Images:
    """The batch's adversarial images, made through whichever branch is active."""
    module = unwrapped(model)
    now = attack.at(context.progress) if isinstance(attack, Scheduled) else attack
    task = context.task
    with attack_mode(module, layers_only=task.needs_training_mode):
        return task.adversarial_images(now, module, batch, context.generator)


def _batch_and_context(
    model: nn.Module, images: Batch | Images, labels: object, context: Context | None
) -> tuple[Batch, Context]:
    """What a step was given, in either form."""
    if isinstance(labels, Context):
        labels, context = None, labels
    if not isinstance(images, Batch) or labels is not None:
        images = loop_checks.batch_of(model, images, labels)
    return images, context or Context()


def perturbation_size(clean: Images, adversarial: Images) -> Tensor:
    """Mean absolute change of a value."""
    return (adversarial.detach() - clean).abs().mean(dtype=torch.float32)


def unwrapped(model: nn.Module) -> nn.Module:
    """The module inside DistributedDataParallel, whose hooks an attack must not fire."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def through(
    model: nn.Module,
    branch: str | tuple[str, ...],
    *,
    shares: Sequence[int] | None = None,
    separate: bool = True,
) -> AbstractContextManager[None]:
    """`use_branch(...)` if the method has branches (`separate`), else a no-op."""
    if not separate:
        return nullcontext()
    return use_branch(unwrapped(model), branch, shares=shares)
