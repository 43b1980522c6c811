"""What every training method is: one function from a batch to gradients and metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.running import frozen_statistics
from advprop.methods.loop_checks import check_logits, check_training, warn_of_unknown_branches
from advprop.randomness import Randomness
from advprop.shapes import Batch, Images, Labels, Logits, correct_predictions

ADVERSARIAL = "adversarial"
"""The auxiliary branch of AdvProp, and the name of its images in metrics."""

LossFn: TypeAlias = Callable[[Logits, Labels], Tensor]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a step may know of the training around it.

    `progress` is the share of training done, 0 to 1, `epoch` the number of the epoch, from 0, where
    it is known; `loss_fn` averages over a batch; `backward` stands for `Tensor.backward` where
    gradients are scaled; `generator` makes attacks repeatable.
    """

    progress: float = 0.0
    step: int = 0
    epoch: int | None = None
    loss_fn: LossFn = F.cross_entropy
    backward: Callable[[Tensor], None] = Tensor.backward
    generator: Randomness = None


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """What a method may know of a training before its first step.

    `image_shape` is (channels, height, width). `folder` is the method's own, for files that last as
    long as the run's; None: there is none. Each of `num_processes`, on `num_machines`, prepares a
    method of its own. `repeats` is how often an image comes in one batch; `mixes_images` tells that
    images are mixtures of two (mixup, CutMix).
    """

    num_images: int
    image_shape: tuple[int, int, int]
    folder: Path | None = None
    seed: int = 0
    num_processes: int = 1
    num_machines: int = 1
    repeats: int = 1
    mixes_images: bool = False


@dataclass(frozen=True, kw_only=True)
class KindMetrics:
    """Mean loss and accuracy over one kind of images, as tensors: reading them may wait.

    `share` is the share of the batch that they were taken over.
    """

    loss: Tensor
    accuracy: Tensor
    share: float = 1.0


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
    `synchronises_statistics` tells whether normalisation may use those of all processes at once.
    """

    synchronises_statistics: ClassVar[bool] = True

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Branches of the model beside the clean one; most methods use none."""
        return ()

    @property
    @abstractmethod
    def passes_per_image(self) -> float:
        """Cost in passes of vanilla training."""

    @abstractmethod
    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Add the batch's gradients to `.grad`; leave branch and modes as found."""

    def prepare(self, facts: TrainingFacts) -> None:  # noqa: B027  (most do nothing)
        """Be told, once before the first step, what is trained on. ValueError: what cannot be."""

    def check_distributed(self) -> None:  # noqa: B027  (most can)
        """ValueError where a backward pass of a step does not reach all parameters.

        DistributedDataParallel, as `train` uses it on several processes, waits for each of them.
        """

    def bytes_on_disk(self, facts: TrainingFacts) -> int:
        """What the method keeps in `facts.folder` while it trains; most keep nothing."""
        return 0

    def state_dict(self) -> dict[str, Any]:
        """What the method remembers between steps, for a checkpoint; most remember nothing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Raises ValueError where it does not fit."""
        if state:
            raise ValueError(
                f"{type(self).__name__} remembers nothing, but was given {list(state)}"
            )

    def forward_backward(
        self,
        model: nn.Module,
        images: Batch | Images,
        labels: Labels | Context | None = None,
        context: Context | None = None,
    ) -> StepMetrics:
        """Add one batch's gradients to the `.grad` of the parameters, and return metrics.

        Call it as `(model, images, labels)` in a loop of one's own, images in [0, 1], or as
        `(model, batch, context)`. The caller zeroes gradients before and steps after. Raises
        ValueError for a model in eval mode, TypeError for one that does not return logits; warns
        of branches that the optimiser does not know of.
        """
        module = attacked_module(model)
        check_training(module)
        if isinstance(images, Batch):
            if isinstance(labels, Tensor):
                raise TypeError("a Batch holds its labels: call (model, batch, context)")
            batch, context = images, labels or context
        elif isinstance(labels, Tensor):
            batch = Batch(images=images, labels=labels)
            warn_of_unknown_branches(module)
        else:
            raise TypeError("labels are missing: call (model, images, labels)")
        try:
            return self.step(model, batch, context or Context())
        except (TypeError, AttributeError) as error:
            check_logits(module, batch.images, error)
            raise


def learn(
    model: nn.Module, images: Images, labels: Labels, context: Context, *, weight: float = 1.0
) -> KindMetrics:
    """One forward and backward pass over `images`, its mean loss times `weight`."""
    torch.clear_autocast_cache()  # the weights may have changed since the last pass
    logits = model(images)
    loss = context.loss_fn(logits, labels)
    context.backward(weight * loss)
    return metrics_of(logits, labels, loss)


def learn_together(
    model: nn.Module,
    parts: Sequence[Batch],
    context: Context,
    *,
    weights: Sequence[float],
) -> list[KindMetrics]:
    """One forward and backward pass over several kinds of images, their mean losses summed.

    Images that require a gradient get it in `.grad`.
    """
    sizes = [len(part) for part in parts]
    # a leaf of its own: torch.compile warns of inputs that could have no `.grad`
    images = torch.cat([part.images.detach() for part in parts])
    images.requires_grad_(any(part.images.requires_grad for part in parts))
    torch.clear_autocast_cache()  # as in `learn`
    logits: Tensor = model(images)
    outputs = logits.split(sizes)
    labels = [part.labels for part in parts]
    losses = [context.loss_fn(*pair) for pair in zip(outputs, labels, strict=True)]
    weighted = [weight * loss for weight, loss in zip(weights, losses, strict=True)]
    context.backward(torch.stack(weighted).sum())
    if images.grad is not None:
        for part, gradient in zip(parts, images.grad.split(sizes), strict=True):
            part.images.grad = gradient if part.images.requires_grad else None
    return [metrics_of(*found) for found in zip(outputs, labels, losses, strict=True)]


def metrics_of(logits: Logits, labels: Labels, loss: Tensor) -> KindMetrics:
    """Detached metrics of one kind of images."""
    accuracy = correct_predictions(logits.detach(), labels).float().mean()
    return KindMetrics(loss=loss.detach(), accuracy=accuracy)


def perturbation_size(clean: Images, adversarial: Images) -> Tensor:
    """Mean absolute change of a value."""
    return (adversarial.detach() - clean).abs().mean(dtype=torch.float32)


def attacked_module(model: nn.Module) -> nn.Module:
    """The module without DistributedDataParallel, whose hooks an attack must not fire."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def counting_nothing(model: nn.Module) -> AbstractContextManager[None]:
    """For a backward pass that runs layers again: their batch is in the running statistics."""
    return frozen_statistics(attacked_module(model))


def through(
    model: nn.Module,
    branch: str | tuple[str, ...],
    *,
    shares: Sequence[int] | None = None,
    separate: bool = True,
) -> AbstractContextManager[None]:
    """`use_branch`, or whatever is active where methods have nothing `separate`."""
    if not separate:
        return nullcontext()
    return use_branch(attacked_module(model), branch, shares=shares)
