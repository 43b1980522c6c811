"""ImageNet's classes by WordNet id, and which of them each test set has.

The lists are those that timm ships: `imagenet_a_synsets.txt` equals the classes of
hendrycks/natural-adv-examples (eval.py), `imagenet_r_synsets.txt` those of hendrycks/imagenet-r
(eval.py), `imagenet_real_labels.json` the labels of google-research/reassessed-imagenet. The
file `objectnet.txt` is ObjectNet's own mapping (`mappings/objectnet_to_imagenet_1k.json` in its
archive, copied in mlfoundations/wise-ft); the table in alibaba/easyrobust is identical.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Final

from timm.data import ImageNetInfo

from advprop.data.listing.classes import shortened

NUM_CLASSES = 1000
_HERE = files("advprop.suites.imagenet")
OBJECTNET_CLASSES: Final[dict[str, tuple[str, ...]]] = {
    folder: tuple(wnids)
    for folder, *wnids in map(str.split, (_HERE / "objectnet.txt").read_text().splitlines())
}
"""The ImageNet classes (125) of each of the 113 ObjectNet folders that ImageNet covers."""


@cache
def imagenet_wnids() -> tuple[str, ...]:
    """Return the 1,000 classes of ILSVRC2012, sorted, which is the usual order of outputs."""
    return tuple(ImageNetInfo().label_names())


@cache
def imagenet_a_wnids() -> tuple[str, ...]:
    """Return the 200 classes of ImageNet-A."""
    return tuple(_timm_file("imagenet_a_synsets.txt").split())


@cache
def imagenet_r_wnids() -> tuple[str, ...]:
    """Return the 200 classes of ImageNet-R."""
    return tuple(_timm_file("imagenet_r_synsets.txt").split())


@cache
def real_labels() -> tuple[tuple[int, ...], ...]:
    """Return the ReaL labels (positions in `imagenet_wnids`) of validation images 1 to 50,000."""
    found = json.loads(_timm_file("imagenet_real_labels.json"))
    return tuple(tuple(sorted(labels)) for labels in found)


def real_rows() -> tuple[tuple[int, ...], ...]:
    """Return the distinct sets of labels in ReaL, in a fixed order."""
    return tuple(sorted({labels for labels in real_labels() if labels}))


def described(names: Sequence[str], limit: int = 3) -> str:
    """Return up to `limit` of `names` for a message, WordNet ids as in "n01440764 (tench)"."""
    return shortened([*map(_with_meaning, names[:limit]), *names[limit:]], limit)


def _with_meaning(name: str) -> str:
    if name not in imagenet_wnids():
        return name
    return f"{name} ({ImageNetInfo().label_name_to_description(name).partition(',')[0]})"


def output_of(class_names: Sequence[str], subject: str) -> dict[str, int]:
    """Return the model output for each of ImageNet's classes, whatever their order in the model.

    Raises ValueError, naming `subject`, if `class_names` are not the 1,000 WordNet ids.
    """
    if len(class_names) != NUM_CLASSES or set(class_names) != set(imagenet_wnids()):
        raise ValueError(
            f"{subject} has {len(class_names)} classes ({shortened(class_names, 3)}); this suite "
            f"needs ImageNet's {NUM_CLASSES:,}, named by WordNet ids "
            f"({shortened(imagenet_wnids(), 2)}): test a model that was trained on ImageNet's "
            "folders, or one of timm's by its name"
        )
    return {wnid: output for output, wnid in enumerate(class_names)}


def _timm_file(name: str) -> str:
    # timm has no function for these lists; a test compares them with the published ones
    return (files("timm.data") / "_info" / name).read_text(encoding="utf-8")
