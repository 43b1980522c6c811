"""Predictions where an image has several right classes, or only some classes compete."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from advprop.evaluation.accuracy import joined
from advprop.shapes import Batch, LogitsFn


@torch.no_grad()
def accepted_predictions(
    logits_fn: LogitsFn,
    batches: Iterable[Batch],
    *,
    accepted: Bool[Tensor, "rows classes"],
    rows: Int[Tensor, " all_images"],
    among: Int[Tensor, " chosen"] | None = None,
) -> Bool[Tensor, " images"]:
    """Whether the prediction for each image is accepted, on the CPU, in the order of the images.

    `rows[i]` is the row of image i of the data set in `accepted`, whose columns are the outputs of
    the model; images that have the same right classes may share one. `among` are the outputs that
    compete: the logits are cut to them before the largest is looked for, so that no other class can
    be predicted.
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
        assert batch.indices is not None
        correct.append(accepted[rows[batch.indices.cpu()], predicted.cpu()])
    return joined(correct)
