"""Suites on further ImageNet test sets, each with the protocol of its published results.

All need a model with ImageNet's 1,000 classes and the set's folder in its published layout.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from advprop.evaluation.accuracy import accepted_predictions
from advprop.results.intervals import bootstrap_interval
from advprop.suites.imagenet.classes import (
    NUM_CLASSES,
    OBJECTNET_CLASSES,
    imagenet_a_wnids,
    imagenet_r_wnids,
    imagenet_wnids,
    output_of,
    real_rows,
)
from advprop.suites.imagenet.folders import (
    RealSplit,
    open_imagenet_v2,
    open_objectnet,
    open_real,
    open_stylized,
    open_wnids,
)
from advprop.suites.trial import OpenFolder, Trial


@dataclass(frozen=True, kw_only=True)
class ImageNetSuite:
    """The test protocol of one set; call it with a trial to run the test.

    `accepted` returns the correct classes (WordNet ids) of each label; by default a label is an
    output of the model, and only that output is correct. `among` returns the classes that can be
    predicted (None: all). `num_images` is the size of the published set.
    """

    name: str
    protocol: str
    num_images: int
    open_folder: OpenFolder
    num_classes: int = NUM_CLASSES
    accepted: Callable[[], Iterable[Sequence[str]]] | None = None
    among: Callable[[], tuple[str, ...]] | None = None

    def __call__(self, trial: Trial) -> dict[str, Any]:
        """Return `NAME_accuracy` of the trial's model with its interval, images and protocol."""
        split, source = trial.images
        if len(split) != self.num_images:
            warnings.warn(
                f"{source} holds {len(split):,} images to test on, the published set has "
                f"{self.num_images:,}: published figures are about the whole set",
                stacklevel=2,
            )
        outputs = output_of(trial.subject.class_names, trial.subject.name)
        competing = None if self.among is None else [outputs[wnid] for wnid in self.among()]
        rows = [(wnid,) for wnid in outputs] if self.accepted is None else [*self.accepted()]
        accepted = torch.zeros(len(rows), NUM_CLASSES, dtype=torch.bool)
        for row, wnids in zip(accepted, rows, strict=True):
            row[[outputs[wnid] for wnid in wnids]] = True
        correct = accepted_predictions(
            trial.logits_fn,
            trial.batches(split),
            accepted=accepted,
            rows=split.rows if isinstance(split, RealSplit) else split.labels,
            among=None if competing is None else torch.tensor(competing),
        )
        return {
            f"{self.name}_accuracy": int(correct.sum()) / len(correct),
            "ci95": bootstrap_interval(correct),
            "num_images": len(correct),
            "num_classes": self.num_classes,
            "protocol": self.protocol,
            "images": source,
        }


def _real_wnids() -> list[list[str]]:
    return [[imagenet_wnids()[label] for label in labels] for labels in real_rows()]


_SLICED = "the logits are cut to the set's 200 classes before the largest is taken"
_ORDINARY = "the largest of the 1,000 logits, the model's own preprocessing"

IMAGENET_SUITES = (
    ImageNetSuite(
        name="imagenet_a",
        protocol=_SLICED,
        num_images=7500,
        open_folder=partial(open_wnids, data_set="ImageNet-A", wnids=imagenet_a_wnids),
        num_classes=200,
        among=imagenet_a_wnids,
    ),
    ImageNetSuite(
        name="imagenet_r",
        protocol=_SLICED,
        num_images=30000,
        open_folder=partial(open_wnids, data_set="ImageNet-R", wnids=imagenet_r_wnids),
        num_classes=200,
        among=imagenet_r_wnids,
    ),
    ImageNetSuite(
        name="imagenet_v2", protocol=_ORDINARY, num_images=10000, open_folder=open_imagenet_v2
    ),
    ImageNetSuite(
        name="sketch",
        protocol=_ORDINARY,
        num_images=50889,
        open_folder=partial(open_wnids, data_set="ImageNet-Sketch", wnids=imagenet_wnids),
    ),
    ImageNetSuite(
        name="stylized",
        protocol="the largest of the 1,000 logits, images as they are stored, at 224x224",
        num_images=50000,
        open_folder=open_stylized,
    ),
    ImageNetSuite(
        name="real",
        protocol="right is any of an image's ReaL labels; images that have none are left out",
        num_images=46837,
        open_folder=open_real,
        accepted=_real_wnids,
    ),
    ImageNetSuite(
        name="objectnet",
        protocol="the largest of the 1,000 logits, right if it is one of the ImageNet classes of "
        "the object; the 113 classes in common; 2 pixels cut off each edge, with the red frame",
        num_images=18574,
        open_folder=open_objectnet,
        num_classes=len(OBJECTNET_CLASSES),
        accepted=OBJECTNET_CLASSES.values,
    ),
)
