"""Equal parts of a batch, which are processed one after another to accumulate gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from advprop.shapes import Batch


def part_size(num_images: int, count: int) -> int:
    """Return the images in each of `count` equal parts; raises ValueError if there are none."""
    if num_images % count:
        raise ValueError(
            f"{num_images} images a process cannot be divided into gradient_accumulation {count} "
            "equal parts: change batch_size, or the number of processes"
        )
    return num_images // count


def micro_batches(batch: Batch, count: int) -> Iterator[Batch]:
    """Yield `count` consecutive parts of `batch`; raises ValueError if they cannot be equal."""
    size = part_size(len(batch), count)
    tensors: dict[str, Any] = {
        field.name: value
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    for first in range(0, len(batch), size):
        part = slice(first, first + size)
        yield replace(
            batch,
            views={name: view[part] for name, view in batch.views.items()},
            **{name: tensor[part] for name, tensor in tensors.items()},
        )


def refuse_small_batch(error: ValueError, size: int) -> None:
    """Raise ValueError with a remedy if `error` says that a batch is too small for BatchNorm."""
    if "more than 1 value per channel" in str(error):
        raise ValueError(
            f"batch normalisation needs more than one value a channel to train, but gets one from "
            f"{size} images a pass ({error}): raise training.batch_size, or lower "
            "training.gradient_accumulation or the number of processes, which divide it"
        ) from error
