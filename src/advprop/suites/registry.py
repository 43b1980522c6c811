"""The registry of suites by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from advprop.suites import attacks, standard
from advprop.suites.corruptions import check_corruptions, corruptions
from advprop.suites.imagenet import folders as imagenet_folders
from advprop.suites.imagenet import suites as imagenet
from advprop.suites.trial import OpenFolder, Trial


def read_images(trial: Trial) -> object:
    """Return the trial's images; raises ValueError or OSError if they are unusable."""
    return trial.images


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite; `run` tests and returns plain data with `NAME_accuracy` and `images`.

    `check` raises ValueError or OSError for unusable images before any test. `needs_folder` marks
    suites whose images the caller must name, since no run has them; `open_folder` opens folders
    with another layout than one subfolder per class. `needs_source` marks suites that attack
    another model; `takes_labels` marks those for images with several labels too.
    """

    run: Callable[[Trial], dict[str, Any]]
    check: Callable[[Trial], object] = read_images
    needs_folder: bool = False
    open_folder: OpenFolder | None = None
    needs_source: bool = False
    takes_labels: bool = False


def _imagenet(suite: imagenet.ImageNetSuite, open_folder: OpenFolder) -> Suite:
    return Suite(run=suite, needs_folder=True, open_folder=open_folder)


SUITES: dict[str, Suite] = {
    "clean": Suite(run=standard.clean, takes_labels=True),
    "noise": Suite(run=standard.noise, takes_labels=True),
    "adversarial": Suite(run=attacks.adversarial, takes_labels=True),
    "autoattack": Suite(run=attacks.autoattack),
    "transfer": Suite(run=attacks.transfer, needs_source=True),
    "corruptions": Suite(run=corruptions, check=check_corruptions, takes_labels=True),
    "imagenet_a": _imagenet(imagenet.imagenet_a, imagenet_folders.open_imagenet_a),
    "imagenet_r": _imagenet(imagenet.imagenet_r, imagenet_folders.open_imagenet_r),
    "imagenet_v2": _imagenet(imagenet.imagenet_v2, imagenet_folders.open_imagenet_v2),
    "sketch": _imagenet(imagenet.sketch, imagenet_folders.open_sketch),
    "stylized": _imagenet(imagenet.stylized, imagenet_folders.open_stylized),
    "real": _imagenet(imagenet.real, imagenet_folders.open_real),
    "objectnet": _imagenet(imagenet.objectnet, imagenet_folders.open_objectnet),
}

DEFAULT_SUITES = ("clean", "noise", "adversarial")
