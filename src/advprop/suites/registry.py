"""The suites by name."""

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
    """The trial's images; raises what is wrong with them."""
    return trial.images


@dataclass(frozen=True, kw_only=True)
class Suite:
    """`run` tests and returns plain data, `NAME_accuracy` and `images` among it.

    `check` raises what is wrong with the trial's images, before anything is tested. `needs_folder`
    tells a suite whose images the caller must name, since no run has them; `open_folder` knows the
    layout of the folder, where that is not a folder for each of the model's classes. `needs_source`
    tells one that takes adversarial images from another model.
    """

    run: Callable[[Trial], dict[str, Any]]
    check: Callable[[Trial], object] = read_images
    needs_folder: bool = False
    open_folder: OpenFolder | None = None
    needs_source: bool = False


def _imagenet(suite: imagenet.ImageNetSuite, open_folder: OpenFolder) -> Suite:
    return Suite(run=suite, needs_folder=True, open_folder=open_folder)


SUITES: dict[str, Suite] = {
    "clean": Suite(run=standard.clean),
    "noise": Suite(run=standard.noise),
    "adversarial": Suite(run=attacks.adversarial),
    "autoattack": Suite(run=attacks.autoattack),
    "transfer": Suite(run=attacks.transfer, needs_source=True),
    "corruptions": Suite(run=corruptions, check=check_corruptions),
    "imagenet_a": _imagenet(imagenet.imagenet_a, imagenet_folders.open_imagenet_a),
    "imagenet_r": _imagenet(imagenet.imagenet_r, imagenet_folders.open_imagenet_r),
    "imagenet_v2": _imagenet(imagenet.imagenet_v2, imagenet_folders.open_imagenet_v2),
    "sketch": _imagenet(imagenet.sketch, imagenet_folders.open_sketch),
    "stylized": _imagenet(imagenet.stylized, imagenet_folders.open_stylized),
    "real": _imagenet(imagenet.real, imagenet_folders.open_real),
    "objectnet": _imagenet(imagenet.objectnet, imagenet_folders.open_objectnet),
}

DEFAULT_SUITES = ("clean", "noise", "adversarial")
