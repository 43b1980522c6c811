"""The suites clean and noise, which need no attack."""

from __future__ import annotations

from typing import Any

from advprop.evaluation.accuracy import evaluate_noise
from advprop.evaluation.clean_report import report_clean
from advprop.evaluation.labels import report_labels
from advprop.suites.trial import Trial


def clean(trial: Trial) -> dict[str, Any]:
    """Return the accuracy on clean images, overall and by class, calibration and confusions."""
    split, source = trial.images
    report = report_labels if trial.subject.multi_label else report_clean
    found = report(trial.logits_fn, trial.batches(split), class_names=trial.subject.class_names)
    return {**found, "images": source}


def noise(trial: Trial) -> dict[str, Any]:
    """Return the accuracy under Gaussian noise."""
    split, source = trial.images
    found = evaluate_noise(
        trial.logits_fn,
        trial.batches(split),
        standard_deviation=trial.settings.noise_standard_deviation,
    )
    return {**found, "images": source}
