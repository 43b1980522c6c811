"""Batches: which images come when, for which process, from which worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from advprop.data.sources import ImageSplit, Key
from advprop.randomness import generator_for
from advprop.shapes import Batch


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """The batches of one pass over a split; sized, and new each time it is iterated over.

    Which images they hold is settled before the first is read, so that skipping costs nothing.
    """

    split: ImageSplit
    indices: tuple[Tensor, ...]
    epoch: int | None
    num_workers: int = 0

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Batch]:
        if self.num_workers == 0:
            return (self.split.__getitems__(keys) for keys in self._keys())
        return self._from_workers()

    def _keys(self) -> Iterator[list[Key]]:
        for indices in self.indices:
            yield [(self.epoch, index) for index in indices.tolist()]

    def _from_workers(self) -> Iterator[Batch]:
        loader = DataLoader(
            cast("Dataset[Batch]", _ErrorsAsValues(self.split)),
            batch_sampler=list(self._keys()),
            collate_fn=_as_it_is,
            num_workers=self.num_workers,
            generator=torch.Generator(),  # else it would draw from torch's global stream
        )
        for batch in loader:
            if isinstance(batch, ValueError):
                raise batch
            yield batch


def train_batches(
    split: ImageSplit,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    first_batch: int = 0,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """The batches of `epoch`, from `first_batch` on, in an order that depends on (seed, epoch).

    `batch_size` counts the images of all `world_size` processes together; each gets an equal share
    of every batch. A last batch that is not full is left out (every epoch leaves out others); a
    split smaller than one batch is one batch. Nothing is read before `first_batch`.
    ValueError: a number out of bounds.
    """
    _check_sizes(batch_size=batch_size, num_workers=num_workers, world_size=world_size)
    if batch_size % world_size:
        raise ValueError(
            f"batch_size={batch_size} cannot be divided by {world_size} processes: it counts the "
            f"images of all of them, take a multiple of {world_size}"
        )
    if not 0 <= rank < world_size:
        raise ValueError(f"rank={rank}: must be from 0 to {world_size - 1} (world_size - 1)")
    count = num_train_batches(len(split), batch_size=batch_size)
    if not 0 <= first_batch <= count:
        raise ValueError(
            f"first_batch={first_batch}: the epoch has {count} batches, 0 is the first"
        )
    share = min(batch_size, len(split)) // world_size
    if share == 0:
        raise ValueError(
            f"{len(split)} images cannot be shared by {world_size} processes: use fewer processes"
        )
    order = torch.randperm(len(split), generator=generator_for(seed, epoch, "order"))
    whole = order[: count * share * world_size].reshape(count, world_size, share)
    return Batches(
        split=split,
        indices=tuple(whole[first_batch:, rank]),
        epoch=epoch,
        num_workers=num_workers,
    )


def num_train_batches(num_images: int, *, batch_size: int) -> int:
    """How many batches an epoch of `num_images` has; at least 1."""
    return max(1, num_images // batch_size)


def test_batches(
    split: ImageSplit,
    *,
    batch_size: int,
    limit: int | None = None,  # noqa: PT028 (no test, in spite of its name)
    num_workers: int = 0,  # noqa: PT028
) -> Batches:
    """Every image once, in order, as evaluation sees it; the last batch may be smaller.

    `limit` takes so many images at most, spread evenly over the split (which is often sorted by
    class). ValueError: a number out of bounds.
    """
    _check_sizes(batch_size=batch_size, num_workers=num_workers)
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: must be at least 1; leave it out for all images")
    count = min(len(split), limit or len(split))
    chosen = torch.arange(count) * len(split) // count
    return Batches(
        split=split,
        indices=chosen.split(batch_size),
        epoch=None,
        num_workers=num_workers,
    )


test_batches.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test


class _ErrorsAsValues:
    """A user's error comes out of a worker as it is, not as a traceback wrapped in text."""

    def __init__(self, split: ImageSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitems__(self, keys: list[Key]) -> Batch | ValueError:
        try:
            return self.split.__getitems__(keys)
        except ValueError as error:
            return error


def _as_it_is(batch: Any) -> Any:
    return batch


def _check_sizes(*, batch_size: int, num_workers: int, world_size: int = 1) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: must be at least 1")
    if num_workers < 0:
        raise ValueError(f"num_workers={num_workers}: must be at least 0 (no process of its own)")
    if world_size < 1:
        raise ValueError(f"world_size={world_size}: must be at least 1")
