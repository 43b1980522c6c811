"""Data sets that timm opens by name, as splits with the promises of a folder of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path

import torch

from advprop.data.preprocessing import Augmentation, Interpolation, Preprocessing
from advprop.data.records import Records, RecordSplit, open_records
from advprop.data.selection import first_stratified, shared_positions
from advprop.data.sources import ImageData, Origin
from advprop.data.splitting import SHARES, sources_in_words


def load_timm_dataset(
    name: str,
    *,
    root: str | Path | None = None,
    train: str = "train",
    validation: str | None = None,
    test: str | None = "test",
    input_key: str = "image",
    target_key: str = "label",
    download: bool = False,
    image_size: int,
    channels: int = 3,
    num_train: int | None = None,
    augmentation: Augmentation | None = None,
    views: Mapping[str, Augmentation] | None = None,
    interpolation: Interpolation = "bicubic",
    crop_pct: float = 0.875,
    seed: int = 0,
    max_unreadable: float = 0.0,
) -> ImageData:
    """A data set of Hugging Face ("hfds/NAME or folder") or torchvision ("torch/cifar10").

    `train`, `validation` and `test` are its own names of the splits; where validation is None, it
    is shared off train by a hash of the positions, and so is the test where both are None. `root`
    is the folder of torchvision's files (`download` fetches them) or of Hugging Face's cache, whose
    columns the keys name. Classes are named as by the source, else by their labels. The rest is as
    for `load_folder`.

    ValueError: no such data set, split or column, labels that are no classes, splits that hold the
    same images, too few images, settings out of bounds. ImportError: extra `data` missing.
    """
    preprocessing = Preprocessing.square(image_size, channels, interpolation, crop_pct)
    opened = partial(
        open_records, name, root=root, columns=(input_key, target_key), download=download
    )
    wanted = {"train": train, "validation": validation, "test": test}
    records = {part: opened(split) for part, split in wanted.items() if split}
    given = {part: f'split "{split}"' for part, split in wanted.items() if split}
    class_names = _class_names(records)
    splits = _splits(records, class_names, preprocessing)
    chosen = replace(_subset(splits["train"], num_train), augmentation=augmentation)
    return ImageData(
        name=name.rpartition("/")[2],
        class_names=class_names,
        preprocessing=preprocessing,
        train=replace(chosen, views=views or {}, seed=seed, max_unreadable=max_unreadable),
        validation=splits["validation"],
        test=splits.get("test"),
        origin=Origin(splits=sources_in_words(given, "positions")),
    )


def _class_names(records: Mapping[str, Records]) -> tuple[str, ...]:
    """Those of the training split, which no other split may contradict."""
    train = records["train"]
    names = train.class_names()
    for other in records.values():
        if other.class_names() != names:
            raise ValueError(
                f"{other.name} has other classes than {train.name} ({other.class_names()} and "
                f"{names}): name splits of one data set"
            )
    if names is None:
        labels = set(train.labels())
        texts = all(isinstance(label, str) for label in labels)
        numbers = [label for label in labels if isinstance(label, int)]
        count = max(numbers, default=-1) + 1
        names = tuple(sorted(labels)) if texts else tuple(str(label) for label in range(count))
    if len(names) < 2:
        raise ValueError(f"{train.name} has {len(names)} classes: at least 2 are needed")
    return names


def _splits(
    records: Mapping[str, Records], class_names: Sequence[str], preprocessing: Preprocessing
) -> dict[str, RecordSplit]:
    """Those that there are; validation, where train is alone the test too, shared off train."""
    splits = {part: _split(own, class_names, preprocessing) for part, own in records.items()}
    _check_different(splits)
    if "validation" in splits:
        return splits
    train = splits["train"]
    shares = {part: SHARES[part] for part in SHARES if part == "train" or part not in splits}
    parts = shared_positions(train.labels.tolist(), _names(train), shares)
    return {**splits, **{part: _taken(train, positions) for part, positions in parts.items()}}


def _split(
    records: Records, class_names: Sequence[str], preprocessing: Preprocessing
) -> RecordSplit:
    label_of = {name: label for label, name in enumerate(class_names)}
    given = records.labels()
    labels = [label_of.get(label, -1) if isinstance(label, str) else label for label in given]
    wrong = [
        f"{given[position]!r} of image {position}"
        for position, label in enumerate(labels)
        if not (isinstance(label, int) and 0 <= label < len(class_names))
    ]
    if wrong or not labels:
        raise ValueError(
            f"{len(wrong)} of the {len(labels)} labels of {records.name} are none of its "
            f"{len(class_names)} classes{', as ' + wrong[0] if wrong else ''}: name the column of "
            "classes (target_key), or leave out a split without images or labels"
        )
    return RecordSplit(
        records=records,
        positions=torch.arange(len(labels)),
        labels=torch.tensor(labels),
        preprocessing=preprocessing,
    )


def _check_different(splits: Mapping[str, RecordSplit]) -> None:
    """Libraries fall back to another split where one is missing: results would be worthless."""
    for (name, one), (other, two) in combinations(splits.items(), 2):
        if torch.equal(one.labels, two.labels) and all(
            one.read(index) == two.read(index) for index in (0, len(one) - 1)
        ):
            raise ValueError(
                f"the splits for {name} and {other} hold the same images ({one.records.name}): "
                f"name another one for {other}, or none"
            )


def _subset(split: RecordSplit, num_train: int | None) -> RecordSplit:
    """The first `num_train` images of a stratified order, in the order of the source again."""
    if num_train is None:
        return split
    chosen = first_stratified(split.labels.tolist(), _names(split), num_train)
    return _taken(split, sorted(chosen))


def _names(split: RecordSplit) -> list[str]:
    return [str(position) for position in split.positions.tolist()]


def _taken(split: RecordSplit, positions: Sequence[int]) -> RecordSplit:
    return replace(split, positions=split.positions[positions], labels=split.labels[positions])
