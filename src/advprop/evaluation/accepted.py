"""Scores predictions where images have several correct classes or only some classes compete."""

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
    """Return whether the prediction for each image is accepted, on the CPU, in the images' order.

    `rows[i]` is the row of the data set's image i in `accepted`, whose columns are the outputs of
    the model; images with the same correct classes may share a row. `among`, if given, are the only
    outputs that can be predicted. Raises ValueError if the model's outputs are not the columns of
    `accepted`.
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
