"""Suites on further ImageNet test sets, each with the protocol of its published results.

All need a model with ImageNet's 1,000 classes and the set's folder in its published layout.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from advprop.data.splits import ImageSplit
from advprop.evaluation.accepted import accepted_predictions
from advprop.results.intervals import bootstrap_interval
from advprop.suites.imagenet.classes import (
    NUM_CLASSES,
    imagenet_a_wnids,
    imagenet_r_wnids,
    imagenet_wnids,
    output_of,
)
from advprop.suites.imagenet.folders import RealSplit, real_rows
from advprop.suites.imagenet.objectnet import OBJECTNET_CLASSES
from advprop.suites.trial import Trial

Outputs = dict[str, int]
"""Maps ImageNet's WordNet ids to the outputs of a model."""


@dataclass(frozen=True, kw_only=True)
class ImageNetSuite:
    """The test protocol of one set; call it with a trial to run the test.

    `accepted` gives a table of correct outputs, `rows` the table's row for each image; by default
    the row is the label and only that output is correct. `among` are the classes that can be
    predicted (None: all). `num_images` is the size of the published set.
    """

    name: str
    protocol: str
    num_images: int
    num_classes: int = NUM_CLASSES
    accepted: Callable[[Outputs], Bool[Tensor, "labels classes"]] = lambda _: _identity()
    rows: Callable[[ImageSplit], Int[Tensor, " num_images"]] = lambda split: split.labels
    among: Callable[[], tuple[str, ...]] | None = None

    def __call__(self, trial: Trial) -> dict[str, Any]:
        """Test the trial's model; returns `NAME_accuracy`, its interval, images and protocol."""
        split, source = trial.images
        if len(split) != self.num_images:
            warnings.warn(
                f"{source} holds {len(split):,} images to test on, the published set has "
                f"{self.num_images:,}: published figures are about the whole set",
                stacklevel=2,
            )
        outputs = output_of(trial.subject.class_names, trial.subject.name)
        competing = None if self.among is None else [outputs[wnid] for wnid in self.among()]
        correct = accepted_predictions(
            trial.logits_fn,
            trial.batches(split),
            accepted=self.accepted(outputs),
            rows=self.rows(split),
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


def objectnet_accepted(outputs: Outputs) -> Bool[Tensor, "labels classes"]:
    """Return a row for each ObjectNet class, true for its correct ImageNet classes."""
    return _rows([outputs[wnid] for wnid in wnids] for wnids in OBJECTNET_CLASSES.values())


def real_accepted(outputs: Outputs) -> Bool[Tensor, "labels classes"]:
    """Return a row for each of `real_rows`, true for its correct ImageNet classes."""
    order = [outputs[wnid] for wnid in imagenet_wnids()]
    return _rows([order[label] for label in labels] for labels in real_rows())


def _rows_of_real(split: ImageSplit) -> Int[Tensor, " num_images"]:
    assert isinstance(split, RealSplit)
    return split.rows


def _identity() -> Bool[Tensor, "labels classes"]:
    return torch.eye(NUM_CLASSES, dtype=torch.bool)


def _rows(accepted: Iterable[list[int]]) -> Bool[Tensor, "labels classes"]:
    rows = list(accepted)
    table = torch.zeros(len(rows), NUM_CLASSES, dtype=torch.bool)
    for row, outputs in enumerate(rows):
        table[row, outputs] = True
    return table


_SLICED = "the logits are cut to the set's 200 classes before the largest is taken"
_ORDINARY = "the largest of the 1,000 logits, the model's own preprocessing"

imagenet_a = ImageNetSuite(
    name="imagenet_a",
    protocol=_SLICED,
    num_images=7500,
    num_classes=200,
    among=imagenet_a_wnids,
)
imagenet_r = ImageNetSuite(
    name="imagenet_r",
    protocol=_SLICED,
    num_images=30000,
    num_classes=200,
    among=imagenet_r_wnids,
)
imagenet_v2 = ImageNetSuite(name="imagenet_v2", protocol=_ORDINARY, num_images=10000)
sketch = ImageNetSuite(name="sketch", protocol=_ORDINARY, num_images=50889)
stylized = ImageNetSuite(
    name="stylized",
    protocol="the largest of the 1,000 logits, images as they are stored, at 224x224",
    num_images=50000,
)
real = ImageNetSuite(
    name="real",
    protocol="right is any of an image's ReaL labels; images that have none are left out",
    num_images=46837,
    accepted=real_accepted,
    rows=_rows_of_real,
)
objectnet = ImageNetSuite(
    name="objectnet",
    protocol=(
        "the largest of the 1,000 logits, right if it is one of the ImageNet classes of the "
        "object; the 113 classes in common; 2 pixels cut off each edge, with the red frame"
    ),
    num_images=18574,
    num_classes=len(OBJECTNET_CLASSES),
    accepted=objectnet_accepted,
)
