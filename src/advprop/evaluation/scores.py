"""Scores of images with one class or several labels, and measures of several labels alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from advprop.randomness import ImageStreams
from advprop.results.summary import LABEL_MEASURES
from advprop.shapes import Batch, Labels, Logits, correct_predictions

EVALUATION_SEED = 0
"""Every evaluation uses the same noise and the same random starts."""


def image_indices(batch: Batch) -> Tensor:
    """Return the images' positions in their data set, or in the batch if those are unknown."""
    return torch.arange(len(batch)) if batch.indices is None else batch.indices


def start_streams(indices: Tensor, restart: int) -> ImageStreams:
    """Return the random numbers of an attack's restart, a function of the image and of it."""
    return ImageStreams.for_batch(EVALUATION_SEED, 0, indices, [restart] * len(indices))


def scored(logits: Logits, labels: Labels) -> Tensor:
    """Return for each image whether its class is right, or the share of its known labels."""
    if labels.ndim == 1:
        return correct_predictions(logits, labels)
    known = ~labels.isnan()
    right = ((logits > 0) == (labels > 0.5)) & known
    return right.sum(dim=1) / known.sum(dim=1).clamp(min=1)


@dataclass(eq=False)
class Scores:
    """Collects each image's score over batches; of several labels, logits and labels too."""

    values: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def add(self, logits: Logits, labels: Labels) -> None:
        """Add a batch."""
        self.values.append(scored(logits, labels))
        if labels.ndim > 1:
            self.logits.append(logits.double().cpu())
            self.labels.append(labels.cpu())

    def means(self, name: str) -> dict[str, float]:
        """Return the label measures' means over labels as `NAME_MEASURE`; {} for classes."""
        if not self.logits:
            return {}
        return macro(name, by_label(torch.cat(self.logits), torch.cat(self.labels)))


def by_label(
    logits: Float[Tensor, "images labels"], labels: Float[Tensor, "images labels"]
) -> list[dict[str, float]]:
    """Return for each label AUROC, average precision and F1 (at a probability of 0.5).

    They are over the images whose label is known; a label that none or all of these have has none.
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
    """Return the measures' means over the labels that have them, as `NAME_MEASURE`."""
    measured = [label for label in each if label]
    return {
        f"{name}_{measure}": sum(label[measure] for label in measured) / len(measured)
        for measure in LABEL_MEASURES
        if measured
    }
