"""Measures the clean and the noise accuracy of a function from images to logits.

Callers set the mode and the active branch of the model behind that function.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from advprop.evaluation.scores import EVALUATION_SEED, Scores, image_indices, scored
from advprop.randomness import ImageStreams, normal
from advprop.results.intervals import bootstrap_interval
from advprop.shapes import Batch, Images, Labels, LogitsFn


def evaluate_clean(logits_fn: LogitsFn, batches: Iterable[Batch]) -> dict[str, Any]:
    """Return `clean_accuracy`, `top5_accuracy` (with more than 5 classes) and `num_images`.

    Images with several labels count by the share of them that is right. This is quick enough for
    validation after each epoch; `clean_report` computes more.
    """
    first: list[Tensor] = []
    five: list[Tensor] = []
    num_classes = 0
    for images, labels, _ in _parts(batches):
        logits = _logits(logits_fn, images)
        first.append(scored(logits, labels))
        if labels.ndim > 1:
            continue
        num_classes = logits.shape[1]
        top = logits.topk(min(5, num_classes), dim=1).indices
        five.append((top == labels[:, None]).any(dim=1))
    result: dict[str, Any] = {"clean_accuracy": mean(joined(first))}
    if num_classes > 5:
        result["top5_accuracy"] = mean(joined(five))
    return {**result, "num_images": sum(map(len, first))}


def evaluate_noise(
    logits_fn: LogitsFn, batches: Iterable[Batch], *, standard_deviation: float
) -> dict[str, Any]:
    """Return `noise_accuracy` under Gaussian noise (fixed for each image), clipped to [0, 1]."""
    scores = Scores()
    for images, labels, streams in _parts(batches):
        noise = standard_deviation * normal(images, streams, purpose="noise")
        scores.add(_logits(logits_fn, (images + noise).clamp(0.0, 1.0)), labels)
    correct = joined(scores.values)
    return {
        "noise_accuracy": mean(correct),
        "ci95": bootstrap_interval(correct),
        **scores.means("noise"),
        "standard_deviation": standard_deviation,
        "num_images": len(correct),
    }


def all_scores(logits_fn: LogitsFn, batches: Iterable[Batch]) -> Scores:
    """Return the scores of all images, in their order."""
    scores = Scores()
    for batch in batches:
        scores.add(_logits(logits_fn, batch.images), batch.labels)
    return scores


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


def _parts(batches: Iterable[Batch]) -> Iterator[tuple[Images, Labels, ImageStreams]]:
    for batch in batches:
        streams = ImageStreams.for_batch(EVALUATION_SEED, 0, image_indices(batch))
        yield batch.images, batch.labels, streams


@torch.no_grad()
def _logits(logits_fn: LogitsFn, images: Images) -> Tensor:
    return logits_fn(images)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Concatenate the tensors of all batches on the CPU; raises ValueError if there are none."""
    if not parts:
        raise ValueError("no images to evaluate on: the set is empty")
    return torch.cat(list(parts)).cpu()


def mean(values: Tensor) -> float:
    """Return the mean of all values in double precision; for booleans, the share of true ones."""
    return float(values.double().mean())
