"""Computes the results of the suite `corruptions` from the scores of corrupted images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from advprop.data.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from advprop.evaluation.accuracy import Scores, mean
from advprop.results.intervals import bootstrap_interval

ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
"""AlexNet's top-1 errors, averaged over severities, which normalise the mean corruption error.

Published with ImageNet-C: Hendrycks and Dietterich, ICLR 2019,
https://github.com/hendrycks/robustness.
"""
NUM_CLASSES = 1000
"""The number of classes of ImageNet-C; these errors apply to no other set."""

Correct: TypeAlias = Mapping[tuple[str, int], Float[Tensor, " num_images"] | Bool[Tensor, " n"]]
"""Maps (corruption, severity) to each image's score, in the same order for all keys."""


def corruption_result(correct: Correct, *, against_alexnet: bool = False) -> dict[str, Any]:
    """Return `corruptions_accuracy`, `mean_error`, `by_corruption`, ... (docs/results.md).

    Means are over those of the 15 `CORRUPTIONS` that `correct` has, without `EXTRA_CORRUPTIONS`.
    `against_alexnet`, for ImageNet-C only, adds `mce`, the mean ratio of the error to AlexNet's, if
    `correct` has all 15 corruptions at all severities.
    """
    severities = sorted({severity for _, severity in correct})
    names = [name for name in CORRUPTIONS if (name, severities[0]) in correct]
    extra = [name for name in EXTRA_CORRUPTIONS if (name, severities[0]) in correct]
    scores = torch.stack([correct[name, s] for name in names for s in severities])
    per_image = scores.double().mean(dim=0)
    accuracy = float(per_image.mean())
    by_corruption = {name: _one(correct, name, severities) for name in names}
    result: dict[str, Any] = {
        "corruptions_accuracy": accuracy,
        "ci95": bootstrap_interval(per_image),
        "mean_error": 1 - accuracy,
    }
    if against_alexnet and (len(names), tuple(severities)) == (len(CORRUPTIONS), SEVERITIES):
        for name, found in by_corruption.items():
            found["ce"] = found["mean_error"] / ALEXNET_ERRORS[name]
        result["mce"] = sum(found["ce"] for found in by_corruption.values()) / len(names)
    result |= {"severities": severities, "by_corruption": by_corruption}
    if extra:
        result["extra"] = {name: _one(correct, name, severities) for name in extra}
    return {**result, "num_images": scores.shape[1]}


def label_means(scores: Mapping[tuple[str, int], Scores]) -> dict[str, float]:
    """Return the label measures as means over the 15 corruptions; {} for images of one class."""
    each = [own.means("corruptions") for (name, _), own in scores.items() if name in CORRUPTIONS]
    return {name: sum(means[name] for means in each) / len(each) for name in each[0]}


def _one(correct: Correct, name: str, severities: Sequence[int]) -> dict[str, Any]:
    accuracies = [mean(correct[name, severity]) for severity in severities]
    return {"accuracy": accuracies, "mean_error": 1 - sum(accuracies) / len(accuracies)}
