"""Reports on clean images with several labels each, and attacks such images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from advprop.attacks.attack import Attack
from advprop.evaluation.accuracy import (
    all_scores,
    by_label,
    evaluation_streams,
    image_indices,
    joined,
    macro,
    mean,
)
from advprop.evaluation.clean_report import calibration
from advprop.results.intervals import bootstrap_interval
from advprop.shapes import Batch, Images, Logits, LogitsFn
from advprop.tasks.multi_label import MultiLabel, label_losses


def report_labels(
    logits_fn: LogitsFn, batches: Iterable[Batch], *, class_names: Sequence[str]
) -> dict[str, Any]:
    """Return the entries of docs/results.md for several labels per image.

    `clean_accuracy` is the mean share of an image's known labels that are right. There are no
    confusions, since labels are predicted independently. Raises ValueError if there are no images.
    """
    scores = all_scores(logits_fn, batches)
    values = joined(scores.values)
    logits, labels = torch.cat(scores.logits), torch.cat(scores.labels)
    known, right = ~labels.isnan(), (logits > 0) == (labels > 0.5)
    each = by_label(logits, labels)
    confidences = logits.abs().sigmoid()[known]
    return {
        "clean_accuracy": mean(values),
        "ci95": bootstrap_interval(values),
        **macro("clean", each),
        "num_images": len(values),
        "per_class": [
            {
                "class": name,
                "accuracy": mean(right[own, place]),
                "num_images": int(own.sum()),
                "num_present": int((labels[:, place] == 1).sum()),
                **each[place],
            }
            for place, (name, own) in enumerate(zip(class_names, known.T, strict=True))
            if own.any()
        ],
        "calibration": calibration(confidences, right[known]),
    }


def attack_labels(
    attack: Attack,
    batch: Batch,
    *,
    attacked_logits_fn: LogitsFn,
    logits_fn: LogitsFn,
    restarts: int,
) -> tuple[Images, Logits]:
    """Return for each image the version with the largest loss, and that version's logits.

    The versions are the clean image and the adversarial image of each restart.
    """
    with torch.no_grad():
        images, logits = batch.images.clone(), logits_fn(batch.images)
    largest = label_losses(logits.float(), batch.labels).sum(dim=1)
    for restart in range(restarts):
        streams = evaluation_streams(image_indices(batch), restart)
        attacked = MultiLabel().adversarial_images(attack, attacked_logits_fn, batch, streams)
        with torch.no_grad():
            found = logits_fn(attacked)
        losses = label_losses(found.float(), batch.labels).sum(dim=1)
        worse = losses > largest
        images[worse], logits[worse], largest[worse] = attacked[worse], found[worse], losses[worse]
    return images, logits
