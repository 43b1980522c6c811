"""Opens the folders of ImageNet's test sets in their published layouts (as `OpenFolder`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor

from advprop.data.listing.classes import list_classes, list_images, shortened
from advprop.data.sets.folders import FileSplit
from advprop.data.sets.stored import FramedSplit, StoredSplit, as_stored
from advprop.data.view import check_splits
from advprop.suites.imagenet.classes import (
    OBJECTNET_CLASSES,
    described,
    imagenet_wnids,
    output_of,
    real_labels,
    real_rows,
)
from advprop.suites.subjects import Subject, check_takes

STYLIZED_SIZE = 224
# the frame is one pixel wide, but the authors' evaluation and published results cut off two
OBJECTNET_FRAME = 2
_VALIDATION = re.compile(r"ILSVRC2012_val_(\d{8})(_n\d{8})?")


def open_wnids(
    folder: Path, subject: Subject, *, data_set: str, wnids: Callable[[], Sequence[str]]
) -> FileSplit:
    """Return a set with a folder for each WordNet id; labels are outputs of the model."""
    outputs = output_of(subject.class_names, subject.name)
    return _class_split(folder, subject, {wnid: outputs[wnid] for wnid in wnids()}, data_set)


def open_stylized(folder: Path, subject: Subject) -> StoredSplit:
    """Return Stylized-ImageNet's validation images, not resized; labels are model outputs."""
    whole = open_wnids(folder, subject, data_set="Stylized-ImageNet", wnids=imagenet_wnids)
    shape = (subject.preprocessing.image_shape[0], STYLIZED_SIZE, STYLIZED_SIZE)
    split = StoredSplit(paths=whole.paths, labels=whole.labels, preprocessing=as_stored(shape))
    split.read(0)  # other folders of the same classes, as ImageNet's own, have images of any size
    check_takes(subject, shape)
    return split


def open_imagenet_v2(folder: Path, subject: Subject) -> FileSplit:
    """Return ImageNetV2, whose folders are numbered in class order; labels are model outputs."""
    outputs = output_of(subject.class_names, subject.name)
    numbered = {str(number): outputs[wnid] for number, wnid in enumerate(imagenet_wnids())}
    return _class_split(folder, subject, numbered, "ImageNetV2")


def open_objectnet(folder: Path, subject: Subject) -> FramedSplit:
    """Return ObjectNet's classes that ImageNet has too; labels are rows of `OBJECTNET_CLASSES`.

    `folder` holds the class folders, or is the archive's folder, which contains `images/`.
    """
    output_of(subject.class_names, subject.name)
    images = folder / "images"
    rows = {name: row for row, name in enumerate(OBJECTNET_CLASSES)}
    files = _class_files(images if images.is_dir() else folder, rows, "ObjectNet", others=True)
    split = FramedSplit(**files, preprocessing=subject.preprocessing, frame=OBJECTNET_FRAME)
    check_splits(split)
    return split


@dataclass(frozen=True, kw_only=True, eq=False)
class RealSplit(FileSplit):
    """Images with several correct labels each; `rows` are their places in `real_rows`.

    `labels` hold the first label of each image as a model output, so that a limited number of
    images can be drawn in proportion to the classes.
    """

    per_image: ClassVar = ("paths", "rows")

    rows: Int[Tensor, " num_images"]


def open_real(folder: Path, subject: Subject) -> RealSplit:
    """Return ImageNet's validation images that have ReaL labels.

    They may lie in class folders or in one folder, since file names identify them.
    """
    outputs = output_of(subject.class_names, subject.name)
    row_of = {labels: row for row, labels in enumerate(real_rows())}
    answers = real_labels()
    numbers = _validation_numbers(folder, len(answers))
    labelled = {path: answers[number - 1] for path, number in numbers.items()}
    kept = {path: labels for path, labels in labelled.items() if labels}
    if not kept:
        raise ValueError(f"{folder}: ReaL labels none of these {len(numbers)} images; name others")
    split = RealSplit(
        paths=tuple(str(folder / path) for path in kept),
        labels=torch.tensor([outputs[imagenet_wnids()[labels[0]]] for labels in kept.values()]),
        rows=torch.tensor([row_of[labels] for labels in kept.values()]),
        preprocessing=subject.preprocessing,
    )
    check_splits(split)
    return split


def _validation_numbers(folder: Path, count: int) -> dict[str, int]:
    """Return the number, from 1 to `count`, of each image below `folder`, by path."""
    paths = list_images(folder)
    matches = {path: _VALIDATION.fullmatch(Path(path).stem) for path in paths}
    numbers = {path: int(match[1]) for path, match in matches.items() if match}
    wrong = [path for path in paths if not 1 <= numbers.get(path, 0) <= count]
    if wrong:
        raise ValueError(
            f"{folder}: {len(wrong)} of {len(paths)} images are not named like ImageNet's "
            f"validation images ({shortened(wrong, 3)}; ILSVRC2012_val_00000001.JPEG to "
            f"{count:08}): ReaL labels are matched by file name, keep the published names"
        )
    by_number: dict[int, str] = {}
    for path, number in numbers.items():
        if (other := by_number.setdefault(number, path)) != path:
            raise ValueError(f"{folder}: {other} and {path} are the same image; keep one of them")
    return numbers


def _class_split(
    folder: Path, subject: Subject, labels: Mapping[str, int], data_set: str
) -> FileSplit:
    files = _class_files(folder, labels, data_set)
    split = FileSplit(**files, preprocessing=subject.preprocessing)
    check_splits(split)
    return split


def _class_files(
    folder: Path, labels: Mapping[str, int], data_set: str, *, others: bool = False
) -> dict[str, Any]:
    """Return paths and labels of the class folders in `labels`; `others` permits more folders."""
    classes = list_classes(folder)
    missing = [name for name in labels if name not in classes]
    unknown = [] if others else [name for name in classes if name not in labels]
    if missing or unknown:
        problems = []
        if missing:
            problems.append(f"{len(missing):,} are missing ({described(missing)})")
        if unknown:
            problems.append(f"{len(unknown):,} do not belong to it ({described(unknown)})")
        raise ValueError(
            f"{folder}: {data_set} is {len(labels):,} class folders, "
            f"{' and '.join(problems)}: name the folder that holds them all, as published"
        )
    paths = [f"{folder}/{path}" for name in labels for path in classes[name]]
    numbers = [label for name, label in labels.items() for _ in classes[name]]
    return {"paths": tuple(paths), "labels": torch.tensor(numbers)}
