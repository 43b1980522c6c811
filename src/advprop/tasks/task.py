"""What every task is, a loss on a model's outputs, and the default one: one class an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from advprop.attacks.attack import Attack, GradientAttack
from advprop.attacks.objectives import Objective, TargetedLoss, TargetRule, untargeted
from advprop.randomness import Randomness
from advprop.shapes import Batch, Images, Labels, Logits, correct_predictions

LossFn: TypeAlias = Callable[[Logits, Labels], Tensor]
Model: TypeAlias = Callable[..., Any]
"""A model, or a function that stands for it, as one through a chosen branch."""


class Task(ABC):
    """What is learnt. A subclass writes `loss`, and `outputs` if the model takes more than images.

    Labels are a tensor, or any sequence that can be sliced, with an entry for each image: a list of
    dicts for a detector, say. `splits` tells whether outputs are one tensor with a row for each
    image, so that one pass gives the loss of each kind of images. `needs_training_mode` tells that
    the model gives a loss in training mode only, as torchvision's detectors do: while it is
    attacked, layers are in eval mode and the modules that hold them are not.
    """

    splits: ClassVar[bool] = True
    needs_training_mode: ClassVar[bool] = False

    @abstractmethod
    def loss(self, outputs: Any, labels: Any) -> Tensor:
        """The mean loss over a batch, a scalar."""

    def outputs(self, model: Model, images: Images, labels: Any) -> Any:
        """What `model` gives for a batch. Raises TypeError unless it is a tensor."""
        found = model(images)
        if not isinstance(found, Tensor):
            raise TypeError(
                f"the model returns a {type(found).__name__}, where logits are needed, a tensor of "
                "(batch, classes): wrap it in a module whose forward returns them, as in "
                "self.model(images).logits, or override `outputs` of its task"
            )
        return found

    def attacked_loss(self, outputs: Any, labels: Any) -> Tensor:
        """The mean loss that an attack raises: the loss that is learnt, or a part of it."""
        return self.loss(outputs, labels)

    def metrics(self, outputs: Any, labels: Any) -> Mapping[str, Tensor]:
        """Numbers to show of one kind of images beside the loss, each a mean over the batch."""
        return {}

    def losses(self, outputs: Any, labels: Any) -> Tensor:
        """The loss that an attack raises, of each image by itself, [batch].

        Raises ValueError unless outputs have a row for each image (`splits`).
        """
        if not self.splits:
            raise ValueError(
                f"{type(self).__name__} has one loss for all images of a batch: override `losses`, "
                "or take a method that does not choose between images"
            )
        rows = [slice(row, row + 1) for row in range(len(outputs))]
        return torch.stack([self.attacked_loss(outputs[row], labels[row]) for row in rows])

    def log_probabilities(self, outputs: Any) -> Tensor:
        """Logarithms of the outcomes' probabilities, along the last dimension, one row an image.

        Raises ValueError for a task that predicts no probabilities.
        """
        raise ValueError(
            f"{type(self).__name__} has no probabilities to compare: override "
            "`log_probabilities`, or take a method that compares none"
        )

    def join(self, labels: Sequence[Any]) -> Any:
        """The labels of several batches as those of one."""
        if isinstance(labels[0], Tensor):
            return torch.cat([*labels])
        return [label for part in labels for label in part]

    def objective(
        self,
        model: Model,
        images: Images,
        labels: Any,
        targets: TargetRule,
        generator: Randomness,
    ) -> Objective:
        """What an attack on `images` raises: `attacked_loss`, times their number.

        Raises ValueError for a rule that chooses targets, for which a task needs classes.
        """
        if targets is not untargeted:
            raise ValueError(
                f"{type(self).__name__} has no classes for an attack to aim at, as "
                f"{getattr(targets, '__name__', targets)} does: give the attack targets="
                "advprop.untargeted, or override `objective`"
            )

        def raised(points: Images) -> Tensor:
            loss = self.attacked_loss(self.outputs(model, points, labels), labels)
            return len(points) * loss

        return raised

    def adversarial_images(
        self, attack: Attack, model: Model, batch: Batch, generator: Randomness
    ) -> Images:
        """The adversarial images of `batch`; the caller has readied `model` for an attack."""
        images, labels = batch.images, batch.labels
        if not isinstance(attack, GradientAttack):
            return attack(model, images, labels, generator=generator)
        objective = self.objective(model, images, labels, attack.targets, generator)
        return attack.maximise(objective, images, generator=generator)


@dataclass(frozen=True)
class Classification(Task):
    """One of several classes an image: class indices, or distributions over classes (mixup).

    `loss_fn` is the mean loss of a batch, cross-entropy by default; smoothing and class weights
    are its own, as in `functools.partial(F.cross_entropy, label_smoothing=0.1, weight=...)`.
    Attacks raise or lower plain cross-entropy, as their target rule says.
    """

    loss_fn: LossFn = F.cross_entropy

    @classmethod
    def smoothed(cls, label_smoothing: float) -> Classification:
        """Return the task with cross-entropy and this much label smoothing, 0 to 1."""
        return cls(partial(F.cross_entropy, label_smoothing=label_smoothing))

    def loss(self, outputs: Logits, labels: Labels) -> Tensor:
        """What `loss_fn` gives."""
        return self.loss_fn(outputs, labels)

    def metrics(self, outputs: Logits, labels: Labels) -> Mapping[str, Tensor]:
        """The accuracy."""
        return {"accuracy": correct_predictions(outputs.detach(), labels).float().mean()}

    def losses(self, outputs: Logits, labels: Labels) -> Tensor:
        """Plain cross-entropy, as attacks have it."""
        return F.cross_entropy(outputs, labels, reduction="none")

    def log_probabilities(self, outputs: Logits) -> Tensor:
        """Those of the classes, in float32 at least."""
        precise = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return F.log_softmax(precise, dim=1)

    def objective(
        self,
        model: Model,
        images: Images,
        labels: Labels,
        targets: TargetRule,
        generator: Randomness,
    ) -> Objective:
        """Cross-entropy towards or away from the labels that the rule gives."""
        return TargetedLoss(partial(self.outputs, model, labels=labels), labels, targets, generator)
