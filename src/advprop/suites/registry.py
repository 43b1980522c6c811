"""The registry of suites by name, and the suites clean and noise, which need no attack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from advprop.evaluation.accuracy import evaluate_noise
from advprop.evaluation.clean_report import report_clean
from advprop.evaluation.labels import report_labels
from advprop.suites import attacks
from advprop.suites.corruptions import check_corruptions, corruptions
from advprop.suites.imagenet.suites import IMAGENET_SUITES
from advprop.suites.trial import OpenFolder, Trial, open_class_folder


def clean(trial: Trial) -> dict[str, Any]:
    """Return the results on clean images (`report_clean`, or `report_labels`) and their name."""
    split, source = trial.images
    report = report_labels if trial.subject.multi_label else report_clean
    found = report(trial.logits_fn, trial.batches(split), class_names=trial.subject.class_names)
    return {**found, "images": source}


def noise(trial: Trial) -> dict[str, Any]:
    """Return the results under Gaussian noise (`evaluate_noise`) and the images' name."""
    split, source = trial.images
    found = evaluate_noise(
        trial.logits_fn,
        trial.batches(split),
        standard_deviation=trial.settings.noise_standard_deviation,
    )
    return {**found, "images": source}


def read_images(trial: Trial) -> object:
    """Return the trial's images; raises ValueError or OSError if they are unusable."""
    return trial.images


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite; `run` tests and returns plain data with `NAME_accuracy` and `images`.

    `check` raises ValueError or OSError for unusable images before any test. `needs_folder` marks
    suites whose images the caller must name, since no run has them; `open_folder` opens the folder
    named, by default one with a subfolder for each class. `needs_source` marks suites that attack
    another model, `takes_labels` those that also accept images with several labels.
    """

    run: Callable[[Trial], dict[str, Any]]
    check: Callable[[Trial], object] = read_images
    needs_folder: bool = False
    open_folder: OpenFolder = open_class_folder
    needs_source: bool = False
    takes_labels: bool = False


SUITES: dict[str, Suite] = {
    "clean": Suite(run=clean, takes_labels=True),
    "noise": Suite(run=noise, takes_labels=True),
    "adversarial": Suite(run=attacks.adversarial, takes_labels=True),
    "autoattack": Suite(run=attacks.autoattack),
    "transfer": Suite(run=attacks.transfer, needs_source=True),
    "corruptions": Suite(run=corruptions, check=check_corruptions, takes_labels=True),
    **{
        suite.name: Suite(run=suite, needs_folder=True, open_folder=suite.open_folder)
        for suite in IMAGENET_SUITES
    },
}

DEFAULT_SUITES = ("clean", "noise", "adversarial")
