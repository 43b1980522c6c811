"""A trial: the model, branches, images and settings with which a suite runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import torch

from advprop.auxiliary.route import CLEAN
from advprop.config.evaluation import EvaluationConfig
from advprop.data.batches.loaders import test_batches
from advprop.data.sets.folders import load_test_folder
from advprop.data.sets.table import load_test_table
from advprop.data.splits import ImageSplit
from advprop.shapes import Batch, LogitsFn
from advprop.suites.subjects import Subject, through_branch

OpenFolder: TypeAlias = Callable[[Path, Subject], ImageSplit]
"""A function that returns a folder's images; raises ValueError or OSError for a wrong layout."""


def open_class_folder(folder: Path, subject: Subject) -> ImageSplit:
    """Return the images of a folder with one subfolder per class, or with a table of labels."""
    if subject.multi_label:
        return load_test_table(
            folder, label_names=subject.class_names, preprocessing=subject.preprocessing
        )
    return load_test_folder(
        folder, class_names=subject.class_names, preprocessing=subject.preprocessing
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class Trial:
    """The input of a suite.

    Images are classified through `eval_branch` and attacked through `attack_branch`. `folder` is
    the caller's folder for this suite, None for the subject's own test images; `open_folder` opens
    it. `limit` is the largest number of images, None for all. `source` is the other model that
    suites with `needs_source` attack, through `source_branch`. `all_branches` requests every pair
    of branches.
    """

    subject: Subject
    eval_branch: str
    attack_branch: str
    folder: Path | None = None
    open_folder: OpenFolder = open_class_folder
    limit: int | None = None
    source: Subject | None = None
    source_branch: str = CLEAN
    all_branches: bool = False

    @property
    def settings(self) -> EvaluationConfig:
        """Return the subject's evaluation settings."""
        return self.subject.evaluation

    @property
    def logits_fn(self) -> LogitsFn:
        """Return the logits function through the tested branch."""
        return through_branch(self.subject.model, self.eval_branch)

    @property
    def attacked_logits_fn(self) -> LogitsFn:
        """Return the logits function through the attacked branch."""
        return through_branch(self.subject.model, self.attack_branch)

    @cached_property
    def images(self) -> tuple[ImageSplit, str]:
        """Return the images of `folder`, else the subject's test images, and their name.

        A subject without test images gives its validation images. Raises ValueError or OSError if
        there are none, or if they are not of the model's classes.
        """
        subject = self.subject
        if self.folder is not None:
            return self.open_folder(self.folder, subject), str(self.folder)
        if subject.load_data is None:
            raise ValueError(
                f"{subject.name}: has no test images of its own; name some, as in --data clean=DIR"
            )
        data = subject.load_data()
        if data.test is None:
            return data.validation, f"{data.name} validation (there is no test/)"
        return data.test, f"{data.name} test"

    def batches(self, split: ImageSplit) -> OnDevice:
        """Return batches of at most `limit` images of `split`, on the model's device."""
        return OnDevice(
            split=split,
            batch_size=self.settings.batch_size,
            limit=self.limit,
            num_workers=self.settings.num_workers,
            device=self.subject.model.mean.device,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class OnDevice:
    """The test batches of a split on `device`; each iteration starts from the first."""

    split: ImageSplit
    batch_size: int
    limit: int | None
    device: torch.device
    num_workers: int = 0

    def __iter__(self) -> Iterator[Batch]:
        batches = test_batches(
            self.split,
            batch_size=self.batch_size,
            limit=self.limit,
            num_workers=self.num_workers,
            pin_memory=self.device.type != "cpu",
        )
        for batch in batches:
            yield batch.to(self.device, memory_format=torch.contiguous_format)
