"""Tar shards (WebDataset) as a data set, with every promise of a folder of images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from advprop.data.listing import MAX_CHECKED_FILES, shortened
from advprop.data.preprocessing import Augmentation, Interpolation, Preprocessing
from advprop.data.selection import first_stratified, shared_positions
from advprop.data.shard_classes import check_labels, read_class_names
from advprop.data.shard_index import index_shards
from advprop.data.shard_paths import find_shards
from advprop.data.shard_split import ShardFiles, ShardSplit
from advprop.data.sources import ImageData, Origin
from advprop.data.splitting import SHARES, sources_in_words


def load_shards(
    *,
    train: str,
    validation: str | None = None,
    test: str | None = None,
    image_size: int,
    channels: int = 3,
    classes: str | Path | None = None,
    num_train: int | None = None,
    augmentation: Augmentation | None = None,
    views: Mapping[str, Augmentation] | None = None,
    interpolation: Interpolation = "bicubic",
    crop_pct: float = 0.875,
    seed: int = 0,
    max_unreadable: float = 0.0,
    shuffle_shards: int = 8,
) -> ImageData:
    """Images in local tar files, each with its label beside it (`000.jpg`, then `000.cls`).

    `train`, `validation` and `test` name shards: `DIR/train-{0000..0127}.tar`, `DIR/train-*.tar`,
    or a folder of them (where `train` is a folder whose shards are named after splits, it gives
    all three). Without validation shards, validation is shared off `train` by a hash of the keys,
    and the test too where there is none. Class names are in the file `classes` (a JSON list, or a
    line a class), or `classes.json` or `.txt` beside the shards of `train`; else they are the
    numbers. Training mixes `shuffle_shards` shards at a time. The rest is as for `load_folder`.
    With `max_unreadable` above 0, the whole samples of a training shard that is cut off are used,
    with a warning. OSError: no such shards. ValueError: faulty shards or labels (all in one
    message), too few images, settings out of bounds.
    """
    if shuffle_shards < 1:
        raise ValueError(f"shuffle_shards={shuffle_shards}: must be at least 1")
    preprocessing = Preprocessing.square(image_size, channels, interpolation, crop_pct)
    splits = _splits(find_shards(train, validation, test), preprocessing, max_unreadable)
    folder = Path(splits["train"].files.paths[0]).parent
    class_names = read_class_names(classes, folder, splits["train"])
    check_labels(splits, class_names)
    given, splits = splits, _completed(splits)
    _check_readable([splits[name] for name in splits if name != "train" or not max_unreadable])
    chosen = replace(
        _subset(splits["train"], num_train), augmentation=augmentation, views=views or {}, seed=seed
    )
    return ImageData(
        name=folder.resolve().name,
        class_names=class_names,
        preprocessing=preprocessing,
        train=replace(chosen, max_unreadable=max_unreadable, shuffle_shards=shuffle_shards),
        validation=splits["validation"],
        test=splits.get("test"),
        origin=_origin(given),
    )


def _origin(given: Mapping[str, ShardSplit]) -> Origin:
    files = {name: split.files.paths for name, split in given.items()}
    words = {name: f"{len(own):,} shards, {Path(own[0]).name} ..." for name, own in files.items()}
    return Origin(splits=sources_in_words(words, "keys"))


def _splits(
    paths: Mapping[str, Sequence[Path]], preprocessing: Preprocessing, max_unreadable: float
) -> dict[str, ShardSplit]:
    return {
        name: _split(name, shards, preprocessing, max_unreadable if name == "train" else 0.0)
        for name, shards in paths.items()
    }


def _split(
    name: str, paths: Sequence[Path], preprocessing: Preprocessing, max_unreadable: float
) -> ShardSplit:
    """All samples of `paths`, in their order."""
    shards = index_shards(paths)
    cuts = [
        f"{path} is cut off or damaged from byte {shard.cut_at:,} on"
        for path, shard in zip(paths, shards, strict=True)
        if shard.cut_at >= 0
    ]
    if cuts and not max_unreadable:
        remedy = "; max_unreadable above 0 goes without the rest" * (name == "train")
        raise ValueError(
            f"{len(cuts)} of {len(paths)} shards are not whole: copy or write them again{remedy}"
            "\n  " + shortened(cuts, separator="\n  ")
        )
    for cut in cuts:
        warnings.warn(f"{cut}; training goes without the images there", stacklevel=5)
    extents = [np.stack([shard.offsets, shard.sizes], axis=1) for shard in shards]
    counts = torch.tensor([len(shard.keys) for shard in shards])
    split = ShardSplit(
        labels=torch.from_numpy(np.concatenate([shard.labels for shard in shards])),
        preprocessing=preprocessing,
        files=ShardFiles([str(path) for path in paths], [shard.stamp for shard in shards]),
        shard_of=torch.arange(len(shards)).repeat_interleave(counts),
        extents=torch.from_numpy(np.concatenate(extents)),
        keys=np.concatenate([shard.keys for shard in shards]),
    )
    _check_keys(name, split)
    return split


def _check_keys(name: str, split: ShardSplit) -> None:
    order = split.keys.argsort(kind="stable")
    twice = (split.keys[order][1:] == split.keys[order][:-1]).nonzero()[0]
    if len(twice):
        first, second = (split.name(int(order[twice[0] + step])) for step in (0, 1))
        raise ValueError(
            f"{len(twice)} keys of data.{name} come in more than one shard, as {first} and "
            f"{second}: leave out copied shards, or give each image a key of its own"
        )


def _completed(splits: dict[str, ShardSplit]) -> dict[str, ShardSplit]:
    """With validation, and where train is alone the test, shared off train."""
    if "validation" in splits:
        return splits
    train = splits["train"]
    shares = {part: SHARES[part] for part in SHARES if part == "train" or part not in splits}
    parts = shared_positions(train.labels.tolist(), _texts(train), shares)
    return {**splits, **{part: _taken(train, positions) for part, positions in parts.items()}}


def _check_readable(splits: Sequence[ShardSplit]) -> None:
    """As `listing.check_readable`: all unreadable headers at once, none looked at in large sets."""
    count = sum(len(split) for split in splits)
    if count > MAX_CHECKED_FILES:
        return
    found = (split.header_problem(index) for split in splits for index in range(len(split)))
    if problems := [problem for problem in found if problem]:
        raise ValueError(
            f"{len(problems)} of {count} images cannot be read:\n  "
            + shortened(problems, separator="\n  ")
        )


def _subset(split: ShardSplit, num_train: int | None) -> ShardSplit:
    """The first `num_train` images of a stratified order, in the order of the shards again."""
    if num_train is None:
        return split
    return _taken(split, sorted(first_stratified(split.labels.tolist(), _texts(split), num_train)))


def _taken(split: ShardSplit, positions: Sequence[int]) -> ShardSplit:
    rows = torch.tensor(positions)
    return replace(
        split,
        labels=split.labels[rows],
        shard_of=split.shard_of[rows],
        extents=split.extents[rows],
        keys=split.keys[positions],
    )


def _texts(split: ShardSplit) -> list[str]:
    return [key.decode(errors="surrogateescape") for key in split.keys.tolist()]
