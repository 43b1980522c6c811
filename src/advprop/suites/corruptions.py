"""The suite `corruptions`: on stored images such as ImageNet-C, or on images corrupted here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from advprop.data.corruptions import (
    EXTRA_CORRUPTIONS,
    check_installed,
    corruption_versions,
    padded_size,
)
from advprop.data.listing.classes import shortened
from advprop.data.sets.stored import (
    StoredSplit,
    check_imagenet_c,
    is_imagenet_c,
    load_imagenet_c,
)
from advprop.data.splits import ArraySplit, ImageSplit
from advprop.evaluation.accuracy import Scores, all_scores, joined
from advprop.evaluation.corruptions import NUM_CLASSES, corruption_result, label_means
from advprop.shapes import Labels, in_bytes
from advprop.suites.corruption_cache import corrupted_images
from advprop.suites.subjects import check_takes
from advprop.suites.trial import Trial


def corruptions(trial: Trial) -> dict[str, Any]:
    """Return the accuracy on corrupted images, and the mean corruption error for ImageNet-C."""
    stored = check_corruptions(trial)
    return _on_the_fly(trial) if stored is None else _from_disk(trial, stored)


def check_corruptions(trial: Trial) -> Path | None:
    """Return the trial's folder if it holds corrupted images, or None if they have to be made.

    Raises ValueError or OSError for unusable images, ImportError if they cannot be made.
    """
    names = trial.subject.class_names
    if trial.folder is not None and is_imagenet_c(trial.folder, names):
        corruptions, severities = _wanted(trial), trial.settings.corruption_severities
        check_imagenet_c(
            trial.folder, class_names=names, corruptions=corruptions, severities=severities
        )
        first = _stored(trial, trial.folder, corruptions[0], severities[0])
        check_takes(trial.subject, first.preprocessing.image_shape)
        return trial.folder
    check_installed()
    trial.images  # noqa: B018 (reads it)
    return None


def _on_the_fly(trial: Trial) -> dict[str, Any]:
    split, source = trial.images
    clean, labels = _pixels(trial, split)
    count = len(_wanted(trial)) * len(trial.settings.corruption_severities)
    images = corrupted_images(clean.numpy(), num_conditions=count)

    def under(corruption: str, severity: int) -> ArraySplit:
        pixels = torch.from_numpy(images.under(corruption, severity))
        return ArraySplit(pixels=pixels, labels=labels)

    scores = _scores(trial, under)
    maker, version = next(iter(corruption_versions().items()))
    result = {
        **corruption_result({key: joined(own.values) for key, own in scores.items()}),
        **label_means(scores),
        "images": source,
        "made": f"on the fly, {maker} {version}",
    }
    height, width = clean.shape[2:]
    padded = padded_size(width, height)
    return result if padded == (width, height) else {**result, "padded_to": list(padded)}


def _pixels(trial: Trial, split: ImageSplit) -> tuple[Tensor, Labels]:
    """Return all images as bytes, so that a large set fits into memory, and their labels."""
    batches = replace(trial.batches(split), device=torch.device("cpu"))
    kept = [(in_bytes(batch.images), batch.labels) for batch in batches]
    pixels, labels = zip(*kept, strict=True)
    return torch.cat(pixels), torch.cat(labels)


def _stored(trial: Trial, root: Path, corruption: str, severity: int) -> StoredSplit:
    return load_imagenet_c(
        root / corruption / str(severity),
        class_names=trial.subject.class_names,
        channels=trial.subject.preprocessing.image_shape[0],
    )


def _from_disk(trial: Trial, root: Path) -> dict[str, Any]:
    first: list[tuple[str, StoredSplit]] = []

    def under(corruption: str, severity: int) -> StoredSplit:
        name, split = f"{corruption}/{severity}", _stored(trial, root, corruption, severity)
        if not first:
            first.append((name, split))
        _check_same_images(trial, *first[0], name, split)
        return split

    correct = {key: joined(own.values) for key, own in _scores(trial, under).items()}
    return {
        **corruption_result(correct, against_alexnet=len(trial.subject.class_names) == NUM_CLASSES),
        "images": str(root),
        "image_size": list(first[0][1].preprocessing.image_shape[1:]),
        "made": "read from disk",
    }


def _scores(trial: Trial, under: Callable[[str, int], ImageSplit]) -> dict[tuple[str, int], Scores]:
    """Return the scores by (corruption, severity); `under` returns the images of such a pair."""
    console = Console(stderr=True)
    conditions = track(  # a bar on a terminal, since making images takes minutes
        [(c, s) for c in _wanted(trial) for s in trial.settings.corruption_severities],
        description="corruptions",
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    return {
        (corruption, severity): all_scores(
            trial.logits_fn, trial.batches(under(corruption, severity))
        )
        for corruption, severity in conditions
    }


def _wanted(trial: Trial) -> tuple[str, ...]:
    extra = EXTRA_CORRUPTIONS if trial.settings.extra_corruptions else ()
    return (*trial.settings.corruptions, *extra)


def _check_same_images(
    trial: Trial, name: str, first: StoredSplit, other_name: str, other: StoredSplit
) -> None:
    """Raise ValueError if two corruptions have other images, since errors are averaged by image."""
    shapes = [split.preprocessing.image_shape for split in (other, first)]
    if shapes[0] != shapes[1]:
        sizes = [f"{width} x {height}" for _, height, width in shapes]
        raise ValueError(
            f"{trial.folder}: the images of {other_name} have {sizes[0]} pixels, those of {name} "
            f"{sizes[1]}: they are tested as they are stored, so all must have one size"
        )
    if differing := sorted(set(first.names()) ^ set(other.names())):
        raise ValueError(
            f"{trial.folder}: {name} has {len(first.paths)} images and {other_name} "
            f"{len(other.paths)}, {len(differing)} are in one of them only "
            f"({shortened(differing, 3)}): unpack the set anew"
        )
