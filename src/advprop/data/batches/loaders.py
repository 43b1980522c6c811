"""Load batches: the order of images, their share for each process, and the workers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor

from advprop.data.batches.mixing import Mixing, with_versions
from advprop.data.batches.sampling import Sampling, copy_numbers
from advprop.data.batches.workers import Assembly, UnreadableTally, batches_from_workers
from advprop.data.listing.selection import stratified_subset
from advprop.data.splits import ImageSplit, Key
from advprop.shapes import AugMixed, Batch, Redrawn, Version


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """The batches of one pass over a split, with a length; each iteration is a new pass.

    The images of all batches are determined before the first is read, so skipping batches costs
    nothing. `indices` and `copies` have one tensor for each batch. Each pass starts `num_workers`
    processes, which takes a quarter of a second by fork; if the system spawns them, they import
    torch and timm again (seconds, up to half a minute).
    """

    assembly: Assembly
    indices: tuple[Tensor, ...]
    copies: tuple[Tensor, ...]
    epoch: int | None
    num_workers: int = 0
    pin_memory: bool = False
    tally: UnreadableTally | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Batch]:
        pins = self.pin_memory and torch.accelerator.is_available()
        if self.num_workers:
            batches = batches_from_workers(
                self.assembly, self._keys(), num_workers=self.num_workers, pin_memory=pins
            )
        else:
            made = map(self.assembly.__getitems__, self._keys())
            batches = (batch.pin_memory() if pins else batch for batch in made)
        for batch in batches:
            if self.tally is not None:
                self.tally.add(batch)
            yield batch

    def _keys(self) -> Iterator[list[Key]]:
        for indices, copies in zip(self.indices, self.copies, strict=True):
            pairs = zip(indices.tolist(), copies.tolist(), strict=True)
            yield [Key(self.epoch, index, copy) for index, copy in pairs]


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
    sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
    mixing: Mixing = Mixing(),  # noqa: B008 (frozen)
    versions: Mapping[str, Version] = MappingProxyType({}),
    num_classes: int | None = None,
    tally: UnreadableTally | None = None,
    pin_memory: bool = False,
) -> Batches:
    """Return the batches of `epoch` from `first_batch` on; their order depends on (seed, epoch).

    `batch_size` counts the images of all `world_size` processes together; each gets an equal share
    of every batch. A last batch that is not full is left out (every epoch leaves out others); a
    split smaller than one batch is one batch. `versions` are further views to make of each image
    (`Method.versions`). A run passes the same `tally` to all its epochs; without one, each epoch
    counts anew. `pin_memory` has an effect only if there is an accelerator.

    Raises ValueError for a `first_batch` out of bounds, a batch that cannot be shared by processes
    or mixed in pairs, mixing without `num_classes`, or `Redrawn` versions of images without
    augmentation.
    """
    count = num_train_batches(len(split), batch_size=batch_size)
    if not 0 <= first_batch <= count:
        raise ValueError(
            f"first_batch={first_batch}: the epoch has {count} batches, 0 is the first"
        )
    if redrawn := [name for name, how in versions.items() if isinstance(how, Redrawn)]:
        split = split.redrawn(redrawn)
    share = images_per_process(len(split), batch_size, world_size, sampling, mixing)
    whole = sampling.indices(
        split, seed=seed, epoch=epoch, num_batches=count, batch_size=share * world_size
    )
    mine = (slice(first_batch, None), slice(rank * share, (rank + 1) * share))
    return Batches(
        assembly=Assembly(split=split, finish=_finish(mixing, versions, seed, epoch, num_classes)),
        indices=tuple(whole[mine]),
        copies=tuple(copy_numbers(whole)[mine]),
        epoch=epoch,
        num_workers=num_workers,
        pin_memory=pin_memory,
        tally=tally or UnreadableTally(max_share=split.max_unreadable, num_images=len(split)),
    )


def num_train_batches(num_images: int, *, batch_size: int) -> int:
    """Return the number of batches in an epoch of `num_images`; at least 1."""
    return max(1, num_images // batch_size)


def test_batches(
    split: ImageSplit,
    *,
    batch_size: int,
    limit: int | None = None,  # noqa: PT028 (no test, in spite of its name)
    num_workers: int = 0,  # noqa: PT028
    rank: int = 0,  # noqa: PT028
    world_size: int = 1,  # noqa: PT028
    pin_memory: bool = False,  # noqa: PT028
) -> Batches:
    """Return batches with every image once, in order, preprocessed for evaluation.

    The last batch may be smaller. `limit` is the largest number of images, a fixed subset with the
    classes in proportion. Process `rank` gets every `world_size`-th batch of `batch_size` images,
    so some get one batch fewer. Raises ValueError for a `limit` below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit={limit}: must be at least 1; leave it out for all images")
    chosen = torch.arange(len(split))
    if limit is not None and limit < len(split):
        chosen = chosen[stratified_subset(split.strata, limit)]
    indices = chosen.split(batch_size)[rank::world_size]
    return Batches(
        assembly=Assembly(split=split),
        indices=indices,
        copies=tuple(torch.zeros_like(batch) for batch in indices),
        epoch=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
    )


test_batches.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it as a test


def images_per_process(
    num_images: int, batch_size: int, world_size: int, sampling: Sampling, mixing: Mixing
) -> int:
    """Return the images of a batch for each process; raises ValueError if it cannot be divided."""
    if batch_size % world_size:
        raise ValueError(
            f"batch_size={batch_size} cannot be divided by {world_size} processes: it counts the "
            f"images of all of them, take a multiple of {world_size}"
        )
    if batch_size % sampling.repeats:
        raise ValueError(
            f"batch_size={batch_size} cannot be divided by repeats={sampling.repeats}: all repeats "
            f"of an image are in one batch, take a multiple of {sampling.repeats}"
        )
    share = min(batch_size, num_images) // world_size
    if share == 0:
        raise ValueError(
            f"{num_images} images cannot be shared by {world_size} processes: use fewer processes"
        )
    if not mixing.is_on:
        return share
    if share % 2:
        raise ValueError(
            f"mixing needs pairs, a batch of {min(batch_size, num_images)} images gives each of "
            f"{world_size} processes {share}: take a batch_size that is a multiple of "
            f"{2 * world_size} and at most {num_images}, or switch mixup and cutmix off"
        )
    if share * world_size <= sampling.repeats:
        raise ValueError(
            f"repeats={sampling.repeats} fills a batch of {share * world_size} with one image, "
            "which leaves no other to mix it with: take fewer repeats or a larger batch_size"
        )
    return share


def _finish(
    mixing: Mixing,
    versions: Mapping[str, Version],
    seed: int,
    epoch: int,
    num_classes: int | None,
) -> tuple[Callable[[Batch], Batch], ...]:
    """Return the functions that finish a batch after reading: mixing, then views by AugMix."""
    if mixing.is_on and num_classes is None:
        raise ValueError("num_classes is missing: mixed labels are distributions over the classes")
    mix = partial(mixing, seed=seed, epoch=epoch, num_classes=num_classes or 0)
    augmixed = {name: how for name, how in versions.items() if isinstance(how, AugMixed)}
    make = partial(with_versions, versions=augmixed, seed=seed, epoch=epoch)
    return (*([mix] if mixing.is_on else []), *([make] if augmixed else []))
