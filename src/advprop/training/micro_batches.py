"""Parts of a batch that pass one after the other, where gradients are accumulated."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

from torch import Tensor

from advprop.shapes import Batch


def micro_batches(batch: Batch, count: int) -> Iterator[Batch]:
    """Yield `count` equal consecutive parts of `batch`; raises ValueError if that is impossible."""
    if count == 1:
        yield batch
        return
    if len(batch) % count:
        raise ValueError(
            f"{len(batch)} images a process cannot be divided into gradient_accumulation {count} "
            "equal parts: change batch_size, or the number of processes"
        )
    tensors: dict[str, Any] = {
        field.name: value
        for field in fields(batch)
        if isinstance(value := getattr(batch, field.name), Tensor)
    }
    size = len(batch) // count
    for first in range(0, len(batch), size):
        part = slice(first, first + size)
        yield replace(
            batch,
            views={name: view[part] for name, view in batch.views.items()},
            **{name: tensor[part] for name, tensor in tensors.items()},
        )
