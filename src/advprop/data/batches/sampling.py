"""Sampling of an epoch's images: each once, balanced over classes, or repeated."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from advprop.data.splits import ImageSplit
from advprop.randomness import generator_for


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How training draws its images; by default, each of them once an epoch.

    `class_balanced` draws every class equally often: images of small classes several times, images
    of large ones not in every epoch, and none again before all others of its class were drawn.
    `repeats` is repeated augmentation (Hoffer et al., 2020): each chosen image occurs that many
    times in the same batch, augmented differently. Neither changes the number of batches, so with
    R repeats an epoch draws one in R of the images, and R epochs draw all.

    Raises ValueError if `repeats` is below 1.
    """

    # pydantic reads this if the class is a field of a configuration: unknown names are errors
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    class_balanced: bool = False
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats={self.repeats}: must be at least 1 (each image once)")

    def indices(
        self, split: ImageSplit, *, seed: int, epoch: int, num_batches: int, batch_size: int
    ) -> Int[Tensor, "num_batches batch_size"]:
        """Return the images of each batch of `epoch`, as a function of the arguments.

        Positions 2k and 2k + 1, which mixing pairs, hold different images if a batch has any,
        except with `class_balanced`, where an image of a small class may be at both.
        """
        each = -(-batch_size // self.repeats)  # different images in a batch
        drawn = self._drawn(split, seed, epoch, num_batches * each).reshape(num_batches, each)
        # each repetition is shifted by one image, so that images get other neighbours
        turns = [drawn.roll(-turn, dims=1) for turn in range(self.repeats)]
        return torch.cat(turns, dim=1)[:, :batch_size]

    def _drawn(self, split: ImageSplit, seed: int, epoch: int, count: int) -> Tensor:
        if self.class_balanced:
            return _class_balanced(split.labels, seed, epoch, count)
        # this many epochs go through one order of all images
        cycle, part = divmod(epoch, self.repeats)
        places = torch.arange(part * count, (part + 1) * count) % len(split)
        return split.epoch_order(seed, cycle)[places]


def copy_numbers(indices: Tensor) -> Tensor:
    """Return for each entry how often its index occurs before it, in row-major order."""
    flat = indices.flatten()
    _, counts = flat.unique(return_counts=True)
    starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
    copies = torch.empty_like(flat)
    copies[flat.argsort(stable=True)] = torch.arange(len(flat)) - starts
    return copies.reshape(indices.shape)


def _class_balanced(labels: Tensor, seed: int, epoch: int, count: int) -> Tensor:
    """Return `count` indices for `epoch`, drawn from the classes in turn and then shuffled.

    All epochs form one sequence of draws: draw t is from class t modulo the number of classes, and
    each class goes through its images in a new random order each time.
    """
    classes = labels.unique()
    turns = torch.arange(epoch * count, (epoch + 1) * count)
    drawn = torch.empty_like(turns)
    for place, label in enumerate(classes.tolist()):
        members = (labels == label).nonzero().flatten()
        own = turns % len(classes) == place
        rounds = turns[own] // len(classes)
        drawn[own] = members[_in_random_rounds(len(members), rounds, seed, label)]
    return drawn[torch.randperm(count, generator=generator_for(seed, epoch, "order"))]


def _in_random_rounds(size: int, draws: Tensor, seed: int, label: int) -> Tensor:
    """Return positions below `size` for consecutive `draws`; each round of `size` permutes them."""
    if not len(draws):
        return draws
    first, last = int(draws[0]) // size, int(draws[-1]) // size
    orders = [
        torch.randperm(size, generator=generator_for(seed, "class", label, number))
        for number in range(first, last + 1)
    ]
    return torch.cat(orders)[draws - first * size]
