"""The base class of tasks, which define a loss, and the default task: one class for each image."""

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
"""A model, or a function in its place, such as a model through a chosen branch."""


class Task(ABC):
    """A task: the loss of a model's outputs, for training and for attacks.

    A subclass defines `loss`, and overrides `outputs` if the model takes more than images. Labels
    are a tensor, or any sequence that can be sliced, with an entry for each image: a list of dicts
    for a detector, for instance. `splits` tells whether outputs are one tensor with a row for each
    image, so that one pass gives the loss of each kind of images. `needs_training_mode` tells that
    the model gives a loss in training mode only, as torchvision's detectors do: in an attack,
    layers are in eval mode, but the modules that hold them are not.
    """

    splits: ClassVar[bool] = True
    needs_training_mode: ClassVar[bool] = False

    @abstractmethod
    def loss(self, outputs: Any, labels: Any) -> Tensor:
        """Return the mean loss over a batch, a scalar."""

    def outputs(self, model: Model, images: Images, labels: Any) -> Any:
        """Return the model's outputs for a batch; raises TypeError unless they are a tensor."""
        found = model(images)
        if not isinstance(found, Tensor):
            raise TypeError(
                f"the model returns a {type(found).__name__}, where logits are needed, a tensor of "
                "(batch, classes): wrap it in a module whose forward returns them, as in "
                "self.model(images).logits, or override `outputs` of its task"
            )
        return found

    def attacked_loss(self, outputs: Any, labels: Any) -> Tensor:
        """Return the mean loss that an attack raises: the loss of training, or a part of it."""
        return self.loss(outputs, labels)

    def metrics(self, outputs: Any, labels: Any) -> Mapping[str, Tensor]:
        """Return numbers to show for one kind of images beside the loss, means over the batch."""
        return {}

    def losses(self, outputs: Any, labels: Any) -> Tensor:
        """Return the loss that an attack raises for each image by itself, [batch].

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
        """Return log-probabilities of the outcomes, along the last dimension, a row for each image.

        Raises ValueError for a task that predicts no probabilities.
        """
        raise ValueError(
            f"{type(self).__name__} has no probabilities to compare: override "
            "`log_probabilities`, or take a method that compares none"
        )

    def join(self, labels: Sequence[Any]) -> Any:
        """Return the labels of several batches as those of one."""
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
        """Return the objective of an attack on `images`: `attacked_loss` times their number.

        Raises ValueError for a rule that chooses targets, since this task has no classes.
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
        """Return adversarial images of `batch`; the caller sets the mode (`attack_mode`)."""
        images, labels = batch.images, batch.labels
        if not isinstance(attack, GradientAttack):
            return attack(model, images, labels, generator=generator)
        objective = self.objective(model, images, labels, attack.targets, generator)
        return attack.maximise(objective, images, generator=generator)


@dataclass(frozen=True)
class Classification(Task):
    """One class for each image; labels are class indices, or distributions over classes (mixup).

    `loss_fn` returns the mean loss of a batch, by default cross-entropy. Smoothing and class
    weights are set in it, as in `functools.partial(F.cross_entropy, label_smoothing=0.1,
    weight=...)`. Attacks raise or lower plain cross-entropy, as their target rule says.
    """

    loss_fn: LossFn = F.cross_entropy

    @classmethod
    def smoothed(cls, label_smoothing: float) -> Classification:
        """Return the task with cross-entropy and this much label smoothing, 0 to 1."""
        return cls(partial(F.cross_entropy, label_smoothing=label_smoothing))

    def loss(self, outputs: Logits, labels: Labels) -> Tensor:
        """Return the mean loss over a batch by `loss_fn`, a scalar."""
        return self.loss_fn(outputs, labels)

    def metrics(self, outputs: Logits, labels: Labels) -> Mapping[str, Tensor]:
        """Return "accuracy", the share of images whose label has the largest logit."""
        return {"accuracy": correct_predictions(outputs.detach(), labels).float().mean()}

    def losses(self, outputs: Logits, labels: Labels) -> Tensor:
        """Return each image's plain cross-entropy, [batch], the loss of attacks."""
        return F.cross_entropy(outputs, labels, reduction="none")

    def log_probabilities(self, outputs: Logits) -> Tensor:
        """Return log-probabilities of the classes, [batch, classes], at least float32."""
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
        """Return a function of images: plain cross-entropy, summed, for the rule's goal."""
        return TargetedLoss(partial(self.outputs, model, labels=labels), labels, targets, generator)
