"""The suites that need nothing but the images: clean and noise."""

from __future__ import annotations

from typing import Any

from advprop.evaluation.accuracy import evaluate_noise
from advprop.evaluation.clean_report import report_clean
from advprop.suites.trial import Trial


def clean(trial: Trial) -> dict[str, Any]:
    """Accuracy on images as they are, by class too, with calibration and confusions."""
    split, source = trial.images
    found = report_clean(
        trial.logits_fn, trial.batches(split), class_names=trial.subject.class_names
    )
    return {**found, "images": source}


def noise(trial: Trial) -> dict[str, Any]:
    """Accuracy under Gaussian noise."""
    split, source = trial.images
    found = evaluate_noise(
        trial.logits_fn,
        trial.batches(split),
        standard_deviation=trial.settings.noise_standard_deviation,
    )
    return {**found, "images": source}
