"""Predictions where a label accepts several classes, or only some classes compete."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from advprop.shapes import Batch, LogitsFn


@torch.no_grad()
def accepted_predictions(
    logits_fn: LogitsFn,
    batches: Iterable[Batch],
    *,
    accepted: Bool[Tensor, "labels classes"],
    among: Int[Tensor, " chosen"] | None = None,
) -> Bool[Tensor, " images"]:
    """Whether the prediction for each image is one that its label accepts, on the CPU.

    `accepted[label, c]` says so of class c, an output of the model; rows need not be classes, so
    labels may stand for anything. `among` are the outputs that compete: the logits are cut to them
    before the largest is looked for, so that no other class can be predicted.
    """
    correct = []
    for batch in batches:
        logits = logits_fn(batch.images)
        if logits.shape[1] != accepted.shape[1]:
            raise ValueError(
                f"the model has {logits.shape[1]} outputs, the labels are about "
                f"{accepted.shape[1]} classes: give a model of these classes"
            )
        if among is None:
            predicted = logits.argmax(dim=1)
        else:
            outputs = among.to(logits.device)
            predicted = outputs[logits[:, outputs].argmax(dim=1)]
        correct.append(accepted[batch.labels.cpu(), predicted.cpu()])
    if not correct:
        raise ValueError("no images to evaluate on: the set is empty")
    return torch.cat(correct)
