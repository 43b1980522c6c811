"""One training step: what it is given, what it gives, and what methods' steps have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import InitVar, dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from advprop.attacks.attack import Attack
from advprop.attacks.schedule import Scheduled
from advprop.auxiliary.branches import attack_mode, use_branch
from advprop.randomness import Randomness
from advprop.shapes import Batch, Images
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


def adversarial_images(attack: Attack, model: nn.Module, batch: Batch, context: Context) -> Images:
    """The batch's adversarial images, made through whichever branch is active."""
    module = unwrapped(model)
    now = attack.at(context.progress) if isinstance(attack, Scheduled) else attack
    task = context.task
    with attack_mode(module, layers_only=task.needs_training_mode):
        return task.adversarial_images(now, module, batch, context.generator)


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
