"""Classifies any number of image files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor

from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.route import CLEAN, has_auxiliary_norms
from advprop.data.listing.walking import ENDINGS_IN_WORDS, images_below
from advprop.data.preprocessing import Preprocessing
from advprop.models.standardize import Standardized
from advprop.shapes import Images, Logits


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The probable classes or all labels of a file with probabilities, or why it is unreadable."""

    path: str
    classes: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def predict(
    model: Standardized,
    images: Sequence[str | Path],
    *,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    top: int = 3,
    batch_size: int = 32,
    multi_label: bool = False,
) -> list[list[tuple[str, float]]]:
    """Return the `top` classes of each image file with probabilities, the most probable first.

    Files are read as in evaluation and go through the clean branch in eval mode; the model's mode
    is restored. All classes are listed if there are fewer than `top`, and all labels if an image
    has several (`multi_label`), each with its own probability. `batch_size` images are processed at
    a time. Raises ValueError for an unreadable file, no file, `top` or `batch_size` below 1, or a
    number of class names that is not that of the logits.
    """
    if not images:
        raise ValueError("no image named: give at least one file")
    found = []
    for prediction in predictions(
        model,
        images,
        class_names=class_names,
        preprocessing=preprocessing,
        top=top,
        batch_size=batch_size,
        multi_label=multi_label,
    ):
        if prediction.error is not None:
            raise ValueError(prediction.error)
        found.append(list(prediction.classes))
    return found


def predictions(
    model: Standardized,
    images: Iterable[str | Path],
    *,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    top: int = 3,
    batch_size: int = 32,
    multi_label: bool = False,
) -> Iterator[Prediction]:
    """Yield the prediction of each image file as in `predict`, in order.

    An unreadable file has an `error` instead. At most `batch_size` images are in memory at a time.
    Raises ValueError as `predict`, but for no or unreadable files.
    """
    if top < 1 or batch_size < 1:
        raise ValueError(f"top={top}, batch_size={batch_size}: both must be at least 1")
    paths = iter(images)
    while batch := [str(path) for path in islice(paths, batch_size)]:
        outcomes = [_read(path, preprocessing) for path in batch]
        readable = [outcome for outcome in outcomes if isinstance(outcome, Tensor)]
        classes = _classes(model, readable, class_names, None if multi_label else top)
        for path, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, str):
                yield Prediction(path=path, error=outcome)
            else:
                yield Prediction(path=path, classes=next(classes))


def find_images(names: Iterable[str]) -> Iterator[str]:
    """Return the image files that `names` denote: files, and folders with their subfolders.

    Of folders, only visible files with the extension of an image count; they are sorted folder by
    folder and listed lazily. Raises ValueError at once for a name without an image.
    """
    found = []
    for name in names:
        if not os.path.lexists(name):
            raise ValueError(f"{name}: there is no such file or folder; check the path")
        paths = images_below(name) if os.path.isdir(name) else iter([name])
        first = next(paths, None)
        if first is None:
            raise ValueError(f"{name}: no image in this folder or below it; {ENDINGS_IN_WORDS}")
        found.append(chain([first], paths))
    if not found:
        raise ValueError("no image named: give files or folders")
    return chain.from_iterable(found)


def _read(path: str, preprocessing: Preprocessing) -> Tensor | str:
    """Return the image, or the error message for an unreadable file."""
    try:
        return preprocessing(path)
    except ValueError as error:
        return str(error)


def _classes(
    model: Standardized, images: Sequence[Tensor], class_names: Sequence[str], top: int | None
) -> Iterator[tuple[tuple[str, float], ...]]:
    if not images:
        return
    logits = _clean_logits(model, torch.stack(tuple(images)))
    if logits.shape[1] != len(class_names):
        raise ValueError(
            f"{len(class_names)} class names for {logits.shape[1]} logits: one for each"
        )
    each = logits.sigmoid() if top is None else logits.softmax(dim=1)
    probabilities, indices = each.topk(min(top or len(class_names), len(class_names)))
    for row in zip(indices.tolist(), probabilities.tolist(), strict=True):
        yield tuple((class_names[index], value) for index, value in zip(*row, strict=True))


@torch.no_grad()
def _clean_logits(model: Standardized, images: Images) -> Logits:
    training = model.training
    model.eval()
    try:
        with use_branch(model, CLEAN) if has_auxiliary_norms(model) else nullcontext():
            logits: Logits = model(images.to(model.mean.device, model.mean.dtype))
            return logits.float().cpu()
    finally:
        model.train(training)
