"""Scores images, and measures the clean and the noise accuracy of a logits function.

Callers set the mode and the active branch of the model behind that function.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from advprop.randomness import ImageStreams, normal
from advprop.results.intervals import bootstrap_interval
from advprop.results.summary import LABEL_MEASURES
from advprop.shapes import Batch, Labels, Logits, LogitsFn, correct_predictions

EVALUATION_SEED = 0
"""Every evaluation uses the same noise and the same random starts."""


def image_indices(batch: Batch) -> Tensor:
    """Return the images' positions in their data set, or in the batch if those are unknown."""
    return torch.arange(len(batch)) if batch.indices is None else batch.indices


def evaluation_streams(indices: Tensor, restart: int = 0) -> ImageStreams:
    """Return the random numbers of a test; they depend only on the image and the `restart`."""
    return ImageStreams.for_batch(EVALUATION_SEED, 0, indices, [restart] * len(indices))


def scored(logits: Logits, labels: Labels) -> Tensor:
    """Return for each image whether its class is right, or the share of known labels that are."""
    if labels.ndim == 1:
        return correct_predictions(logits, labels)
    known = ~labels.isnan()
    right = ((logits > 0) == (labels > 0.5)) & known
    return right.sum(dim=1) / known.sum(dim=1).clamp(min=1)


@dataclass(eq=False)
class Scores:
    """Each image's score over batches and, for several labels per image, its logits and labels."""

    values: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def add(self, logits: Logits, labels: Labels) -> None:
        """Add the scores of a batch."""
        self.values.append(scored(logits, labels))
        if labels.ndim > 1:
            self.logits.append(logits.double().cpu())
            self.labels.append(labels.cpu())

    def means(self, name: str) -> dict[str, float]:
        """Return `NAME_MEASURE`, the means of `by_label`; {} if images have one class each."""
        if not self.logits:
            return {}
        return macro(name, by_label(torch.cat(self.logits), torch.cat(self.labels)))


def by_label(
    logits: Float[Tensor, "images labels"], labels: Float[Tensor, "images labels"]
) -> list[dict[str, float]]:
    """Return for each label its AUROC, average precision and F1 (at a probability of 0.5).

    They are computed over the images whose label is known; a label that is present in none or in
    all of them has {}.
    """
    from torchmetrics.functional.classification import (  # seconds to import
        binary_auroc,
        binary_average_precision,
        binary_f1_score,
    )

    found = []
    for column, truth in zip(logits.sigmoid().T, labels.T, strict=True):
        known = ~truth.isnan()
        sure, truth = column[known], truth[known].long()
        if 0 < int(truth.sum()) < len(truth):
            values = (
                binary_auroc(sure, truth),
                binary_average_precision(sure, truth),
                binary_f1_score(sure, truth),
            )
            found.append(dict(zip(LABEL_MEASURES, map(float, values), strict=True)))
        else:
            found.append({})
    return found


def macro(name: str, each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return `NAME_MEASURE`, each measure's mean over the labels that have it; {} if none do."""
    measured = [label for label in each if label]
    return {
        f"{name}_{measure}": sum(label[measure] for label in measured) / len(measured)
        for measure in LABEL_MEASURES
        if measured
    }


@torch.no_grad()
def evaluate_clean(logits_fn: LogitsFn, batches: Iterable[Batch]) -> dict[str, Any]:
    """Return `clean_accuracy` and `num_images`; raises ValueError if there are no images.

    An image with several labels counts as the share of its known labels that are right.
    """
    correct = joined([scored(logits_fn(batch.images), batch.labels) for batch in batches])
    return {"clean_accuracy": mean(correct), "num_images": len(correct)}


@torch.no_grad()
def evaluate_noise(
    logits_fn: LogitsFn, batches: Iterable[Batch], *, standard_deviation: float
) -> dict[str, Any]:
    """Return `noise_accuracy` on images with Gaussian noise, clipped to [0, 1], and its interval.

    The noise of an image depends only on its position in the set. Raises ValueError without any.
    """
    scores = Scores()
    for batch in batches:
        streams = evaluation_streams(image_indices(batch))
        noise = standard_deviation * normal(batch.images, streams, purpose="noise")
        scores.add(logits_fn((batch.images + noise).clamp(0.0, 1.0)), batch.labels)
    correct = joined(scores.values)
    return {
        "noise_accuracy": mean(correct),
        "ci95": bootstrap_interval(correct),
        **scores.means("noise"),
        "standard_deviation": standard_deviation,
        "num_images": len(correct),
    }


@torch.no_grad()
def all_scores(logits_fn: LogitsFn, batches: Iterable[Batch]) -> Scores:
    """Return the scores of all images, in the order of the batches."""
    scores = Scores()
    for batch in batches:
        scores.add(logits_fn(batch.images), batch.labels)
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
    outputs that can be predicted. Raises ValueError if there are no images.
    """
    correct = []
    for batch in batches:
        logits = logits_fn(batch.images)
        if among is None:
            predicted = logits.argmax(dim=1)
        else:
            outputs = among.to(logits.device)
            predicted = outputs[logits[:, outputs].argmax(dim=1)]
        assert batch.indices is not None
        correct.append(accepted[rows[batch.indices.cpu()], predicted.cpu()])
    return joined(correct)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Return the tensors of all batches as one, on the CPU; raises ValueError if there are none."""
    if not parts:
        raise ValueError("no images to evaluate on: the set is empty")
    return torch.cat(list(parts)).cpu()


def mean(values: Tensor) -> float:
    """Return the mean of all values in double precision; for booleans, the share of true ones."""
    return float(values.double().mean())
