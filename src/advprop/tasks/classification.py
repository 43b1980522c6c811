"""One class an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from advprop.attacks.objectives import Objective, TargetedLoss, TargetRule
from advprop.randomness import Randomness
from advprop.shapes import Images, Labels, Logits, correct_predictions
from advprop.tasks.task import Model, Task

LossFn: TypeAlias = Callable[[Logits, Labels], Tensor]


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
