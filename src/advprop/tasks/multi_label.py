"""Any number of labels an image, of which some may be unknown."""

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
    """Each label by itself present or absent: binary cross-entropy on a logit for each.

    Labels are floats of shape [batch, labels]: 1 present, 0 absent, NaN unknown, between them for
    mixtures of two images. The loss is a mean over the batch's known labels, which
    `label_smoothing` moves towards 0.5; present ones count `positive_weights` times, a number for
    each label (None: 1). Attacks know neither.

    An attack towards a wrong class drawn at random goes, for each image, towards the wrong side of
    one of its known labels, drawn uniformly; one towards the least likely class takes the label of
    which the model is most sure, and rightly. Other labels do not count: they would get better, all
    but one. An untargeted attack goes away from all known labels.
    """

    positive_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0

    def loss(self, outputs: Logits, labels: Tensor) -> Tensor:
        """The mean over known labels; 0 without any."""
        _check(outputs, labels)
        smooth = labels + self.label_smoothing * (0.5 - labels)
        losses = _losses(outputs, smooth, pos_weight=self._weights(outputs))
        return losses.sum() / _num_known(labels)

    def metrics(self, outputs: Logits, labels: Tensor) -> Mapping[str, Tensor]:
        """The share of known labels that are on the right side of a probability of 0.5."""
        right = (outputs.detach() > 0) == (labels > 0.5)
        found = (right & ~labels.isnan()).sum() / _num_known(labels)
        return {"accuracy": found}

    def losses(self, outputs: Logits, labels: Tensor) -> Tensor:
        """Each image's binary cross-entropy, a mean over its known labels; 0 without any."""
        return _losses(outputs, labels).sum(dim=1) / (~labels.isnan()).sum(dim=1).clamp(min=1)

    def log_probabilities(self, outputs: Logits) -> Tensor:
        """Those of each label, present and absent, in float32 at least."""
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
        """Binary cross-entropy over all known labels of all images, by the rule's goal."""

        def goal(
            labels: Tensor, logits: Logits, generator: Randomness
        ) -> tuple[Tensor, Literal[-1, 1]]:
            return _flipped(targets, labels, logits, generator)

        return TargetedLoss(
            partial(self.outputs, model, labels=labels), labels, goal, generator, loss=_summed
        )

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
    """The goal of a rule for classes: its class is a label to flip, and the only one that counts.

    The rule sees the logits of each flip, and unknown labels as true classes, which it does not
    choose; one more of these makes two classes of a single label. A rule that chooses no class
    keeps the labels.
    """
    _check(logits, labels)
    unknown = F.pad(labels.isnan().float(), (0, 1), value=1.0)
    flips = F.pad((1 - 2 * labels.nan_to_num(0.5)) * logits, (0, 1))
    chosen, sign = targets(unknown, flips, generator)
    if chosen.ndim > 1:
        return labels, sign
    place = chosen.clamp(max=labels.shape[1] - 1)[:, None]  # beyond: an image without known labels
    nothing = torch.full_like(labels, torch.nan)
    return nothing.scatter(1, place, 1 - labels.gather(1, place)), sign


def _summed(logits: Logits, labels: Tensor) -> Tensor:
    return _losses(logits, labels).sum()


def _losses(logits: Logits, labels: Tensor, **options: Any) -> Float[Tensor, "batch labels"]:
    """Of each label, 0 where it is unknown."""
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
