"""Identify a data set by its images, their order and labels, but not by its location."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from advprop.data.listing.classes import shortened
from advprop.data.splits import ImageData, ImageSplit

NUM_SIZES, NUM_CONTENTS = 4096, 64
"""The most images of a split, spread over it, that are compared by size, and by contents."""
_REPAIRED_SHARE = 0.01
_DIGITS = 8  # hexadecimal digits of an image's checksum
_MODEL = ("class_names", "image_shape", "interpolation", "crop_pct")
_OLD_TRAIN = ("num_train", "train_labels_sha256")


def data_facts(data: ImageData) -> dict[str, Any]:
    """Return the facts of `data` that a run saves: the model's input, and the images' identity.

    Two data sets are the same if these facts are equal except for "name".
    """
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    return {
        "name": data.name,
        "class_names": list(data.class_names),
        "image_shape": list(data.image_shape),
        "interpolation": data.preprocessing.interpolation,
        "crop_pct": data.preprocessing.crop_pct,
        "num_train": len(data.train),
        "num_validation": len(data.validation),
        "num_test": None if data.test is None else len(data.test),
        "train_labels_sha256": hashlib.sha256(data.train.label_bytes).hexdigest(),
        "images": {
            name: _split_facts(split) for name, split in splits.items() if split is not None
        },
    }


def _split_facts(split: ImageSplit) -> dict[str, Any]:
    listed = "\n".join(split.names()).encode(errors="surrogateescape")
    return {
        "num": len(split),
        "order_sha256": hashlib.sha256(split.label_bytes + listed).hexdigest(),
        "checksums": "".join(f"{checksum:0{_DIGITS}x}" for checksum in _checksums(split)),
    }


def _looked_at(count: int, limit: int) -> range:
    """Return at most `limit` of `count` positions, spread evenly."""
    return range(0, count, max(1, -(-count // limit)))


def _checksums(split: ImageSplit) -> Iterator[int]:
    """Yield a checksum for each compared image: of its size, and for some also of the contents."""
    looked_at = _looked_at(len(split), NUM_SIZES)
    contents = set(looked_at[:: max(1, -(-len(looked_at) // NUM_CONTENTS))])
    for index in looked_at:
        try:
            size = str(split.stored_size(index)).encode()
            yield zlib.crc32(split.stored(index) if index in contents else b"", zlib.crc32(size))
        except (OSError, ValueError):  # reported when the image is read
            yield 0


@dataclass(kw_only=True)
class Changes:
    """The changes of a run's data in words: fatal ones prevent a resume, harmless ones do not."""

    fatal: list[str] = field(default_factory=list)
    harmless: list[str] = field(default_factory=list)


def find_changes(saved: Mapping[str, Any], now: Mapping[str, Any], data: ImageData) -> Changes:
    """Return the changes from the facts `saved` earlier to the facts `now` of `data`.

    Training can only resume with the same training images in the same order; at most 1 % of the
    compared images, or a single one, may have other contents. Facts missing in `saved` are ignored.
    """
    changes = Changes()
    before, images = saved.get("images") or {}, now["images"]
    known = [*_MODEL, *([] if "train" in before else _OLD_TRAIN)]
    changes.fatal += [_told(n, saved[n], now[n]) for n in known if saved.get(n, now[n]) != now[n]]
    if "train" in before:
        told, names = _compared("training", before["train"], images["train"], data.train)
        allowed = max(1, _REPAIRED_SHARE * len(_looked_at(len(data.train), NUM_SIZES)))
        same_order = before["train"].get("order_sha256") == images["train"]["order_sha256"]
        repaired = same_order and len(names) <= allowed
        (changes.harmless if repaired else changes.fatal).extend(told)
    for name, split in (("validation", data.validation), ("test", data.test)):
        count = f"num_{name}"
        if before and (name in before or name in images):
            told, _ = _compared(name, before.get(name), images.get(name), split)
            changes.harmless += told
        elif count in saved and saved[count] != now[count]:
            changes.harmless.append(_told(count, saved[count], now[count]))
    return changes


def _compared(
    name: str, before: Any, now: Any, split: ImageSplit | None
) -> tuple[list[str], list[str]]:
    """Return at most one line about a split's difference, and the images with other contents."""
    if before == now:
        return [], []
    if not before or not now or split is None:
        return [f"there {'were' if now else 'are now'} no {name} images"], []
    if before.get("num") != now["num"]:
        return [f"there were {before.get('num')} {name} images, there are {now['num']}"], []
    if before.get("order_sha256") != now["order_sha256"]:
        return [f"the {name} images have other names, labels or another order"], []
    names = _changed_images(split, str(before.get("checksums")), now["checksums"])
    return [f"{len(names)} {name} images have other contents ({shortened(names, 3)})"], names


def _changed_images(split: ImageSplit, before: str, now: str) -> list[str]:
    names, places = split.names(), range(0, len(now), _DIGITS)
    return [
        names[index]
        for index, at in zip(_looked_at(len(split), NUM_SIZES), places, strict=True)
        if before[at : at + _DIGITS] != now[at : at + _DIGITS]
    ]


def _told(name: str, before: Any, now: Any) -> str:
    """Return a changed fact in words: both values, or the entries that only one list has."""
    if isinstance(before, list) and isinstance(now, list) and set(before) != set(now):
        gone = shortened([str(n) for n in before if n not in now], 5) or "nothing"
        new = shortened([str(n) for n in now if n not in before], 5) or "nothing"
        return f"{name} lacks {gone} and has {new} more"
    return f"{name} was {str(before)[:200]}, is {str(now)[:200]}"
