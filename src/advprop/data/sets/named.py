"""Load data sets that timm opens by name, with the same guarantees as a folder of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, combinations
from pathlib import Path
from typing import Any

import torch

from advprop.data.listing.sharing import sources_in_words
from advprop.data.preprocessing import Preprocessing
from advprop.data.sets.records import Records, RecordSplit, open_records
from advprop.data.splits import ImageData, Origin
from advprop.data.view import View, image_data


def load_timm_dataset(
    name: str,
    view: View,
    *,
    root: str | Path | None = None,
    train: str = "train",
    validation: str | None = None,
    test: str | None = "test",
    input_key: str = "image",
    target_key: str = "label",
    download: bool = False,
) -> ImageData:
    """Load a data set of Hugging Face ("hfds/NAME or folder") or torchvision ("torch/cifar10").

    `train`, `validation` and `test` are the source's names of the splits. If `validation` is None,
    it is split off "train" by a hash of the positions; so is the test if both are None. `root` is
    the folder of torchvision's files (`download` fetches them) or of Hugging Face's cache.
    `input_key` and `target_key` name the columns of Hugging Face that hold images and labels. Class
    names are those of the source, else the labels.

    In a column of lists, each image has several labels: those in its list are present, all others
    absent. The lists hold indices of a ClassLabel, or text.

    Raises ValueError if a data set, split or column is missing, labels are no classes, two splits
    hold the same images, or as `image_data` does; ImportError if the extra `data` is missing.
    """
    opened = partial(
        open_records, name, root=root, columns=(input_key, target_key), download=download
    )
    wanted = {"train": train, "validation": validation, "test": test}
    records = {part: opened(split) for part, split in wanted.items() if split}
    given = {part: f'split "{split}"' for part, split in wanted.items() if split}
    listed = {part: _listed(own) for part, own in records.items()}
    class_names = _class_names(records, *listed["train"])
    splits = {
        part: _split(own, *listed[part], class_names, view.preprocessing)
        for part, own in records.items()
    }
    _check_different(splits)
    return image_data(
        splits,
        view,
        name=name.rpartition("/")[2],
        class_names=class_names,
        origin=Origin(splits=sources_in_words(given, "positions")),
    )


def _class_names(
    records: Mapping[str, Records], rows: Sequence[Sequence[Any]], several: bool
) -> tuple[str, ...]:
    """Return the class names of the training split, whose labels are `rows` (`_listed`).

    Raises ValueError if another split has other names.
    """
    train = records["train"]
    names = train.class_names
    for other in records.values():
        if other.class_names != names:
            raise ValueError(
                f"{other.name} has other classes than {train.name} ({other.class_names} and "
                f"{names}): name splits of one data set"
            )
    if names is None:
        labels = [label for label in chain.from_iterable(rows) if label is not None]
        texts = all(isinstance(label, str) for label in labels)
        if several and not texts:
            raise ValueError(
                f"{train.name} has lists of labels without names, as {next(filter(None, rows))}, "
                "which may be indices of labels, or a number for each label: make them indices, "
                "and cast the column to a list of datasets.ClassLabel(names=[...])"
            )
        numbers = [label for label in labels if isinstance(label, int)]
        count = max(numbers, default=-1) + 1
        names = tuple(sorted(set(labels))) if texts else tuple(str(label) for label in range(count))
    if len(names) < 2 - several:
        needed = "1 label is" if several else "2 classes are"
        raise ValueError(f"{train.name} has {len(names)}: at least {needed} needed")
    return names


def _listed(records: Records) -> tuple[list[list[Any]], bool]:
    """Return each image's labels, and whether they are lists at the source too."""
    several = any(isinstance(labels, list) for labels in records.labels)
    return [label if isinstance(label, list) else [label] for label in records.labels], several


def _split(
    records: Records,
    rows: Sequence[Sequence[Any]],
    several: bool,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
) -> RecordSplit:
    label_of = {name: label for label, name in enumerate(class_names)}
    given = [(position, label) for position, row in enumerate(rows) for label in row]
    labels = [label_of.get(label, -1) if isinstance(label, str) else label for _, label in given]
    wrong = [
        f"{given[place][1]!r} of image {given[place][0]}"
        for place, label in enumerate(labels)
        if not (isinstance(label, int) and 0 <= label < len(class_names))
    ]
    if wrong or not labels:
        raise ValueError(
            f"{len(wrong)} of the {len(labels)} labels of {records.name} are none of its "
            f"{len(class_names)} classes{', as ' + wrong[0] if wrong else ''}: name the column of "
            "classes (target_key), put them right, or leave out a split without images or labels"
        )
    found = torch.tensor(labels)
    if several:
        found = torch.zeros(len(rows), len(class_names))
        found[[position for position, _ in given], labels] = 1.0
    return RecordSplit(
        source=records.name,
        record=records.image,
        positions=torch.arange(len(rows)),
        labels=found,
        preprocessing=preprocessing,
    )


def _check_different(splits: Mapping[str, RecordSplit]) -> None:
    """Raise ValueError if two splits are equal: libraries replace a missing split by another."""
    for (name, one), (other, two) in combinations(splits.items(), 2):
        if torch.equal(one.labels, two.labels) and all(
            one.read(index) == two.read(index) for index in (0, len(one) - 1)
        ):
            raise ValueError(
                f"the splits for {name} and {other} hold the same images ({one.source}): "
                f"name another one for {other}, or none"
            )
