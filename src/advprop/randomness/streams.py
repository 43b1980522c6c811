"""A stream of random numbers for each image, and seeds that depend on their purpose."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from advprop.randomness.hashing import hashed


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on all `parts` and their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def image_key(seed: int, epoch: int, index: int, copy: int = 0) -> tuple[int, ...]:
    """Return the parts of a seed for one use of an image; `copy` is left out for the first use."""
    return (seed, epoch, index, copy) if copy else (seed, epoch, index)


@dataclass(frozen=True)
class ImageStreams:
    """One random stream for each image of a batch, independent of the batch and the process.

    `keys` has one `image_key` for each image; equal keys draw equal numbers for the same purpose.
    """

    keys: Sequence[tuple[int, ...]]

    @classmethod
    def for_batch(
        cls,
        seed: int,
        epoch: int,
        indices: Tensor | Sequence[int],
        copies: Tensor | Sequence[int] | None = None,
    ) -> ImageStreams:
        """Return the streams of the images `indices` in `epoch` of the run with this `seed`.

        `copies` number the uses of one image in an epoch (None: each is used once). Raises
        ValueError if the numbers of copies and images differ.
        """
        copies = [0] * len(indices) if copies is None else torch.as_tensor(copies).tolist()
        uses = zip(torch.as_tensor(indices).tolist(), copies, strict=True)
        return cls([image_key(seed, epoch, index, copy) for index, copy in uses])

    def draw(
        self,
        shape: Sequence[int],
        purpose: str,
        *,
        normal: bool,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Draw float32 numbers of `shape`; row i depends on the key of image i and `purpose` alone.

        On the CPU, torch's generator is seeded for each image. Elsewhere that would take a kernel
        an image, and a copy from the CPU would cost more than a step, so `hashed` draws them there,
        the same on every GPU. Raises ValueError if there are not `shape[0]` keys.
        """
        if len(self.keys) != shape[0]:
            raise ValueError(
                f"{len(self.keys)} random streams for {shape[0]} images: one for each is needed"
            )
        if torch.device(device).type != "cpu":
            seeds = self._seeds ^ derive_seed(purpose)
            count = math.prod(shape[1:])
            return hashed(seeds, count, normal=normal, device=device).view(*shape)
        values = torch.empty(tuple(shape), device=device)
        stream = torch.Generator(device=device)
        for row, key in zip(values, self.keys, strict=True):
            stream.manual_seed(derive_seed(*key, purpose))
            row.normal_(generator=stream) if normal else row.uniform_(generator=stream)
        return values

    @cached_property
    def _seeds(self) -> Tensor:
        """Return a number for each image, different for all images, epochs and uses.

        They are no digests, which would take most of a draw's time; `hashed` mixes similar seeds.
        """
        bases = {base: derive_seed(*base) for base in {key[:2] for key in self.keys}}
        seeds = [bases[key[:2]] ^ key[2] ^ (key[3] << 40 if key[3:] else 0) for key in self.keys]
        return torch.tensor(seeds, dtype=torch.int64)


Randomness: TypeAlias = torch.Generator | ImageStreams | None
"""A generator, one stream for each image, or None for torch's global stream."""


def of_part(randomness: Randomness, part: slice | Sequence[int]) -> Randomness:
    """Return the randomness of some images of a batch."""
    if not isinstance(randomness, ImageStreams):
        return randomness
    keys = randomness.keys
    return ImageStreams(keys[part] if isinstance(part, slice) else [keys[row] for row in part])


def uniform(like: Tensor, randomness: Randomness, *, purpose: str) -> Tensor:
    """Draw uniform numbers in [0, 1), shaped and typed as `like`; half precision may round to 1."""
    return _draw(like, randomness, purpose, normal=False)


def normal(like: Tensor, randomness: Randomness, *, purpose: str) -> Tensor:
    """Draw standard normal numbers, shaped and typed as `like`."""
    return _draw(like, randomness, purpose, normal=True)


def _draw(like: Tensor, randomness: Randomness, purpose: str, *, normal: bool) -> Tensor:
    # drawn in float32, so that half precision gets the same numbers, rounded
    if isinstance(randomness, ImageStreams):
        values = randomness.draw(like.shape, purpose, normal=normal, device=like.device)
    else:
        device = like.device if randomness is None else randomness.device
        values = torch.empty(like.shape, device=device)
        if normal:
            values.normal_(generator=randomness)
        else:
            values.uniform_(generator=randomness)
    return values.to(like.device, like.dtype, non_blocking=True)
