"""The task of images with several labels each, some of which may be unknown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from advprop.attacks.objectives import Objective, TargetedLoss, TargetRule
from advprop.randomness import Randomness
from advprop.shapes import Images, Logits
from advprop.tasks.task import Model, Task


@dataclass(frozen=True)
class MultiLabel(Task):
    """Several labels for each image, present or absent: binary cross-entropy, a logit for each.

    Labels are floats of shape [batch, labels]: 1 present, 0 absent, NaN unknown, and values in
    between for mixtures of two images. The loss is the mean over the batch's known labels, after
    `label_smoothing` moves them towards 0.5; present ones count `positive_weights` times, one
    number for each label (None: 1). Attacks use neither smoothing nor weights.

    An attack with `random_other_class` flips one known label of each image, drawn uniformly; one
    with `least_likely_class` flips the label that the model predicts correctly with most
    confidence. The image's other labels are left out of the loss: an attack towards all of them
    would improve all but the flipped one. An `untargeted` attack raises the loss of all known
    labels.
    """

    positive_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def loss(self, outputs: Logits, labels: Tensor) -> Tensor:
        """Return the mean loss of the batch's known labels, a scalar; 0 if none is known.

        Raises ValueError unless labels are floats of the logits' shape, and `positive_weights` (if
        any) as many.
        """
        _check(outputs, labels)
        smooth = labels + self.label_smoothing * (0.5 - labels)
        losses = label_losses(outputs, smooth, pos_weight=self._weights(outputs))
        return losses.sum() / _num_known(labels)

    def metrics(self, outputs: Logits, labels: Tensor) -> Mapping[str, Tensor]:
        """Return "accuracy", the share of known labels on the right side of probability 0.5."""
        right = (outputs.detach() > 0) == (labels > 0.5)
        found = (right & ~labels.isnan()).sum() / _num_known(labels)
        return {"accuracy": found}

    def losses(self, outputs: Logits, labels: Tensor) -> Tensor:
        """Return each image's mean loss over its known labels, [batch]; 0 if none is known."""
        return label_losses(outputs, labels).sum(dim=1) / (~labels.isnan()).sum(dim=1).clamp(min=1)

    def log_probabilities(self, outputs: Logits) -> Tensor:
        """Return log-probabilities of present and absent, [batch, labels, 2], at least float32."""
        precise = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        return F.logsigmoid(torch.stack([precise, -precise], dim=2))

    def objective(
        self,
        model: Model,
        images: Images,
        labels: Tensor,
        targets: TargetRule,
        generator: Randomness,
    ) -> Objective:
        """Return a function of images: the loss of the rule's goal, summed over known labels."""
        outputs = partial(self.outputs, model, labels=labels)
        goal = partial(_flipped, targets)
        return TargetedLoss(outputs, labels, goal, generator, loss=_summed)

    def _weights(self, logits: Logits) -> Tensor | None:
        if self.positive_weights is None:
            return None
        if len(self.positive_weights) != logits.shape[1]:
            raise ValueError(
                f"{len(self.positive_weights)} positive_weights for {logits.shape[1]} labels: give "
                "one for each"
            )
        return torch.tensor(self.positive_weights).to(logits, non_blocking=True)


def _flipped(
    targets: TargetRule, labels: Tensor, logits: Logits, generator: Randomness
) -> tuple[Tensor, Literal[-1, 1]]:
    """Return the goal (labels, sign) that `targets`, a rule for classes, sets for several labels.

    The rule chooses one label to flip, which is the only known one in the result. It sees the logit
    of each flip in place of a class, and unknown labels as true classes, which it does not choose;
    one more true class is added, so that a single label makes two classes. If it chooses no class,
    labels are returned unchanged.
    """
    _check(logits, labels)
    unknown = F.pad(labels.isnan().float(), (0, 1), value=1.0)
    flips = F.pad((1 - 2 * labels.nan_to_num(0.5)) * logits, (0, 1))
    chosen, sign = targets(unknown, flips, generator)
    if chosen.ndim > 1:
        return labels, sign
    place = chosen.clamp(max=labels.shape[1] - 1)[:, None]  # the added class if no label is known
    nothing = torch.full_like(labels, torch.nan)
    return nothing.scatter(1, place, 1 - labels.gather(1, place)), sign


def _summed(logits: Logits, labels: Tensor) -> Tensor:
    return label_losses(logits, labels).sum()


def label_losses(logits: Logits, labels: Tensor, **options: Any) -> Float[Tensor, "batch labels"]:
    """Return the loss of each label, 0 where it is unknown."""
    truth = labels.nan_to_num(0.0).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none", **options)
    return losses.masked_fill(labels.isnan(), 0.0)


def _num_known(labels: Tensor) -> Tensor:
    return (~labels.isnan()).sum().clamp(min=1)


def _check(logits: Logits, labels: Tensor) -> None:
    if labels.shape != logits.shape or not labels.is_floating_point():
        raise ValueError(
            f"labels {labels.dtype} of shape {tuple(labels.shape)} for logits of shape "
            f"{tuple(logits.shape)}: several labels an image are floats, a number for each logit "
            "(1 present, 0 absent, NaN unknown)"
        )
