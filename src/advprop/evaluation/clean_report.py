"""Reports accuracy by class, calibration and confusions on clean images with one class each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from advprop.evaluation.accuracy import joined, mean
from advprop.results.intervals import bootstrap_interval
from advprop.shapes import Batch, LogitsFn

NUM_BINS = 15
MAX_CONFUSIONS = 1000


@dataclass(frozen=True)
class Answers:
    """For each image the label, the prediction, its confidence, and whether the top 5 are right."""

    labels: Int[Tensor, " num_images"]
    predictions: Int[Tensor, " num_images"]
    confidences: Float[Tensor, " num_images"]
    in_top5: Bool[Tensor, " num_images"]

    @property
    def correct(self) -> Bool[Tensor, " num_images"]:
        """Return whether each prediction equals the label."""
        return self.predictions == self.labels


def report_clean(
    logits_fn: LogitsFn, batches: Iterable[Batch], *, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return the entries of the suite `clean` in docs/results.md for images of one class each.

    `class_names` are in the order of the logits. Raises ValueError if there are no images.
    """
    answers = collect_answers(logits_fn, batches)
    result: dict[str, Any] = {
        "clean_accuracy": mean(answers.correct),
        "ci95": bootstrap_interval(answers.correct),
    }
    if len(class_names) > 5:
        result["top5_accuracy"] = mean(answers.in_top5)
    return {
        **result,
        "num_images": len(answers.labels),
        "per_class": per_class(answers, class_names),
        "calibration": calibration(answers.confidences, answers.correct),
        "confusion": confusion(answers, class_names),
    }


@torch.no_grad()
def collect_answers(logits_fn: LogitsFn, batches: Iterable[Batch]) -> Answers:
    """Return the answers to all images, on the CPU; raises ValueError if there are none."""
    parts: list[tuple[Tensor, ...]] = []
    for batch in batches:
        logits = logits_fn(batch.images)
        top = logits.topk(min(5, logits.shape[1]), dim=1).indices
        in_top5 = (top == batch.labels[:, None]).any(dim=1)
        # in double precision, since many confidences are within 1e-7 of 1
        confidences = logits.double().softmax(dim=1).amax(dim=1)
        parts.append((batch.labels, logits.argmax(dim=1), confidences, in_top5))
    columns = zip(*parts, strict=True) if parts else [()] * 4
    return Answers(*map(joined, columns))


def calibration(
    confidences: Float[Tensor, " num_images"], correct: Bool[Tensor, " num_images"]
) -> dict[str, Any]:
    """Return the expected calibration error over 15 bins of equal width (Guo et al., 2017).

    `ece` is the mean of |accuracy - confidence| over the bins, weighted by their images. A bin
    covers the confidences in (`low`, `high`]; empty bins are omitted.
    """
    places = (confidences * NUM_BINS).ceil().long().clamp(1, NUM_BINS) - 1
    bins: list[dict[str, Any]] = []
    error = 0.0
    for place in range(NUM_BINS):
        inside = places == place
        count = int(inside.sum())
        if not count:
            continue
        confidence, accuracy = mean(confidences[inside]), mean(correct[inside])
        error += count / len(correct) * abs(accuracy - confidence)
        bins.append(
            {
                "low": place / NUM_BINS,
                "high": (place + 1) / NUM_BINS,
                "confidence": confidence,
                "accuracy": accuracy,
                "num_images": count,
            }
        )
    return {"ece": error, "num_bins": NUM_BINS, "bins": bins}


def per_class(answers: Answers, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the accuracy for each class that has images, in the order of classes."""
    labels = answers.labels
    counts = labels.bincount(minlength=len(class_names)).tolist()
    right = labels[answers.correct].bincount(minlength=len(class_names)).tolist()
    return [
        {"class": name, "accuracy": right[label] / count, "num_images": count}
        for label, (name, count) in enumerate(zip(class_names, counts, strict=True))
        if count
    ]


def confusion(answers: Answers, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the counts of wrong predictions by class and prediction, the most frequent first."""
    wrong = ~answers.correct
    pairs = torch.stack([answers.labels[wrong], answers.predictions[wrong]], dim=1)
    found, counts = pairs.unique(dim=0, return_counts=True)
    ranked = sorted(zip(counts.tolist(), found.tolist(), strict=True), key=lambda e: (-e[0], e[1]))
    return [
        {"class": class_names[label], "predicted": class_names[prediction], "count": count}
        for count, (label, prediction) in ranked[:MAX_CONFUSIONS]
    ]
