"""Load tar shards (WebDataset) as a data set, with the same guarantees as a folder of images."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from advprop.data.listing.classes import shortened
from advprop.data.listing.sharing import sources_in_words
from advprop.data.shards.finding import CLASSES_NAME, find_shards
from advprop.data.shards.scanning import index_shards
from advprop.data.shards.split import ShardFiles, ShardSplit
from advprop.data.splits import ImageData, Origin
from advprop.data.view import View, image_data
from advprop.files.parsing import decoded, parse_json


def load_shards(
    view: View,
    *,
    train: str,
    validation: str | None = None,
    test: str | None = None,
    classes: str | Path | None = None,
    shuffle_shards: int = 8,
) -> ImageData:
    """Load images from local tar files, each with its label beside it (`000.jpg`, then `000.cls`).

    `train`, `validation` and `test` name shards: `DIR/train-{0000..0127}.tar`, `DIR/train-*.tar`,
    or a folder of them (if `train` is a folder whose shards are named after splits, it provides
    all three). Without validation shards, validation is split off `train` by a hash of the keys,
    and so is a missing test. Class names are read from the file `classes` (a JSON list, or one
    name a line), or `classes.json` or `.txt` beside the shards of `train`; else they are the
    label numbers. Training mixes `shuffle_shards` shards at a time. If `view.max_unreadable` is
    above 0, a truncated training shard gives its complete samples and a warning.

    Raises OSError if shards are missing, and ValueError for faulty shards or labels (all in one
    message) or as `image_data` does.
    """
    if shuffle_shards < 1:
        raise ValueError(f"shuffle_shards={shuffle_shards}: must be at least 1")
    splits = {
        name: _split(name, paths, view, shuffle_shards)
        for name, paths in find_shards(train, validation, test).items()
    }
    files = {name: split.files.paths for name, split in splits.items()}
    given = {name: f"{len(own):,} shards, {Path(own[0]).name} ..." for name, own in files.items()}
    folder = Path(files["train"][0]).parent
    class_names = _class_names(classes, folder, splits["train"])
    _check_labels(splits, class_names)
    return image_data(
        splits,
        view,
        name=folder.resolve().name,
        class_names=class_names,
        origin=Origin(splits=sources_in_words(given, "keys")),
    )


def _split(name: str, paths: Sequence[Path], view: View, shuffle_shards: int) -> ShardSplit:
    """Return all samples of `paths`, in their order."""
    shards = index_shards(paths)
    cuts = [
        f"{path} is cut off or damaged from byte {shard.cut_at:,} on"
        for path, shard in zip(paths, shards, strict=True)
        if shard.cut_at >= 0
    ]
    if cuts and not (view.max_unreadable and name == "train"):
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
        preprocessing=view.preprocessing,
        shuffle_shards=shuffle_shards,
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


def _class_names(path: str | Path | None, folder: Path, train: ShardSplit) -> tuple[str, ...]:
    """Return the names in `path` or in a file in `folder`; else the numbers in `train.labels`."""
    beside = [folder / CLASSES_NAME, folder / "classes.txt"]
    found = Path(path) if path else next((file for file in beside if file.exists()), None)
    if found:
        names = _read_names(found)
    else:
        present = set(train.labels.tolist())
        gaps = (label for label in range(max(present)) if label not in present)
        # at most ten are listed: a single wrong label may be very large
        if missing := list(islice(gaps, 10)):
            raise ValueError(
                f"labels go up to {max(present)}, but there are no images of class "
                f"{shortened(map(str, missing))}: if that is right, name the "
                f"classes in {beside[1]}, one a line, starting with class 0"
            )
        names = [str(label) for label in range(len(present))]
    if len(names) < 2:
        raise ValueError(f"{found or folder} has {len(names)} classes: at least 2 are needed")
    return tuple(names)


def _check_labels(splits: Mapping[str, ShardSplit], class_names: Sequence[str]) -> None:
    for name, split in splits.items():
        outside = (split.labels >= len(class_names)).nonzero().flatten().tolist()
        if outside:
            raise ValueError(
                f"{len(outside)} labels of data.{name} are outside of the {len(class_names)} "
                f"classes, as {split.labels[outside[0]]} of {split.name(outside[0])}: they count "
                f"from 0 to {len(class_names) - 1}; correct them or the names of the classes"
            )


def _read_names(path: Path) -> list[str]:
    try:
        text = decoded(path.read_bytes())
        if path.suffix != ".json":
            return [line.strip() for line in text.splitlines() if line.strip()]
        names = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): write a list of names") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} must hold a list of names, starting with class 0")
    return names
