"""The suites that need nothing but the images: clean, noise, adversarial."""

from __future__ import annotations

from typing import Any

from advprop.auxiliary.modes import attack_mode
from advprop.evaluation.accuracy import evaluate_adversarial, evaluate_noise
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


def adversarial(trial: Trial) -> dict[str, Any]:
    """Accuracy on images attacked through one branch and tested through the same or another."""
    split, source = trial.images
    with attack_mode(trial.subject.model):
        found = evaluate_adversarial(
            trial.logits_fn,
            trial.batches(split),
            attack=trial.settings.attack.build(),
            attacked_logits_fn=trial.attacked_logits_fn,
        )
    branches = {"attack_branch": trial.attack_branch, "eval_branch": trial.eval_branch}
    return {**found, **branches, "images": source}
