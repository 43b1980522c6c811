"""The suites that need nothing but the images: clean and noise."""

from __future__ import annotations

from typing import Any

from advprop.evaluation.accuracy import evaluate_clean, evaluate_noise
from advprop.suites.trial import Trial


def clean(trial: Trial) -> dict[str, Any]:
    """Accuracy on images as they are."""
    split, source = trial.images
    return {**evaluate_clean(trial.logits_fn, trial.batches(split)), "images": source}


def noise(trial: Trial) -> dict[str, Any]:
    """Accuracy under Gaussian noise."""
    split, source = trial.images
    found = evaluate_noise(
        trial.logits_fn,
        trial.batches(split),
        standard_deviation=trial.settings.noise_standard_deviation,
    )
    return {**found, "images": source}
