"""One training step: its arguments, its results, and helpers that methods share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from advprop.attacks.attack import Attack, by_gradients
from advprop.attacks.objectives import Objective
from advprop.attacks.schedule import Scheduled
from advprop.auxiliary.branches import attack_mode, use_branch
from advprop.randomness import Randomness
from advprop.shapes import Batch, Images
from advprop.tasks.task import Classification, LossFn, Task

ADVERSARIAL = "adversarial"
"""The auxiliary branch of AdvProp, and the name of its images in metrics."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """Facts about the training that a step may depend on.

    `progress` is the share of training that is done, 0 to 1. `step` and `epoch` count from 0;
    `epoch` is None if it is not known. `task` defines the loss, and `loss_fn` is short for a
    `Classification` with this loss. `backward` takes the place of `Tensor.backward` where gradients
    are scaled. `generator` makes attacks repeatable (None: torch's global stream).
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
    """The mean loss and the task's metrics over one kind of images.

    They are tensors on the device, so reading them may wait for it. `share` is the number of these
    images as a share of the batch.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]
    share: float = 1.0

    @property
    def accuracy(self) -> Tensor:
        """Return the accuracy of classes or several labels; raises KeyError for another task."""
        return self.metrics["accuracy"]


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """Metrics of one step by kind of images ("clean", "noise", "adversarial").

    `loss` is the loss that the step minimises. `perturbation` is the mean absolute change of a
    value by the attack, or None for methods without one.
    """

    loss: Tensor
    kinds: Mapping[str, KindMetrics]
    perturbation: Tensor | None = None


def adversarial_images(
    attack: Attack,
    model: nn.Module,
    batch: Batch,
    context: Context,
    objective: Callable[[nn.Module], Objective] | None = None,
) -> Images:
    """Return adversarial versions of the batch's images, through whichever branch is active.

    The attack raises the task's loss, or what `objective` returns when called with the unwrapped
    model in `attack_mode`; any attack but a `GradientAttack` then raises ValueError.
    """
    module, task = unwrapped(model), context.task
    now = attack.at(context.progress) if isinstance(attack, Scheduled) else attack
    with attack_mode(module, layers_only=task.needs_training_mode):
        if objective is None:
            return task.adversarial_images(now, module, batch, context.generator)
        own = by_gradients(now)
        return own.maximise(objective(module), batch.images, generator=context.generator)


def perturbation_size(clean: Images, adversarial: Images) -> Tensor:
    """Return the mean absolute change of a value, a float32 scalar."""
    return (adversarial.detach() - clean).abs().mean(dtype=torch.float32)


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside DistributedDataParallel, whose hooks must not run in attacks."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def through(
    model: nn.Module,
    branch: str | tuple[str, ...],
    *,
    shares: Sequence[int] | None = None,
    separate: bool = True,
) -> AbstractContextManager[None]:
    """Return `use_branch(...)` if the method has branches (`separate`), else a no-op."""
    if not separate:
        return nullcontext()
    return use_branch(unwrapped(model), branch, shares=shares)
