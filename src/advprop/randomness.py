"""Random numbers as a function of (seed, epoch or step, image, purpose), without any state.

Therefore a resumed run needs no generator states, and each image gets the same random numbers with
any number of loader workers or devices.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed that depends on all `parts` and their order."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_dropout(seed: int) -> None:
    """Seed torch's global random streams on all devices.

    Without an accelerator, it avoids `torch.manual_seed`, which takes ten times as long there.
    """
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def mark_dropout(device: torch.device) -> Callable[[], None]:
    """Record the states of torch's global streams on the CPU and `device`.

    Calling the result restores them, so that dropout draws the same masks again. It does not wait
    for the device, since a generator's state is on the host.
    """
    host = torch.get_rng_state()
    module = torch.get_device_module(device) if device.type not in ("cpu", "meta") else None
    # torch.mps has one device, and its functions take no device argument
    of_device = () if device.type == "mps" else (device,)
    state = None if module is None else module.get_rng_state(*of_device)

    def redraw() -> None:
        torch.set_rng_state(host)
        if module is not None:
            module.set_rng_state(state, *of_device)

    return redraw


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
        return cls(
            [
                image_key(seed, epoch, index, copy)
                for index, copy in zip(torch.as_tensor(indices).tolist(), copies, strict=True)
            ]
        )

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
        """A number for each image, different for all images, epochs and uses.

        It is no digest, which would take most of the time of a draw; `hashed` mixes similar seeds.
        """
        bases = {base: derive_seed(*base) for base in {key[:2] for key in self.keys}}
        seeds = [bases[key[:2]] ^ key[2] ^ (key[3] << 40 if key[3:] else 0) for key in self.keys]
        return torch.tensor(seeds, dtype=torch.int64)


def hashed(
    seeds: Tensor, count: int, *, normal: bool, device: torch.device | str = "cpu"
) -> Tensor:
    """Return float32 numbers of shape [len(seeds), count]; a row depends on its seed alone.

    They are uniform in [0, 1), multiples of 2^-24, or standard `normal` by the inverse
    distribution. Numbers 2 k and 2 k + 1 are the halves of a 64-bit hash of k and the seed (int64
    on the CPU): both are mixed and multiplied, and the product is mixed again. A few kernels make a
    batch. The hash is the same on every device; normal numbers may differ in their last bits.
    """
    words = torch.arange(1, -(-count // 2) + 1, device=device) * _GOLDEN
    factors = (_mix(seeds.clone(), *_FACTORS) | 1).to(device, non_blocking=True)
    product = _mix(factors[:, None] * _mix(words, *_FACTORS), _FACTORS[0])
    bits = 23 if normal else 24  # 23, so that the added 0.5 is exact in float32
    values = product.view(torch.int32)[:, :count] >> (32 - bits)
    middle = torch.tensor(0.5, dtype=torch.float32)
    if normal:
        return (values + middle).mul_(2.0 ** (1 - bits)).erfinv_().mul_(math.sqrt(2))
    return torch.add(middle, values, alpha=2.0**-bits)


def _mix(words: Tensor, *factors: int) -> Tensor:
    """Replace each 64-bit word in place by (word ^ (word >> 32)) * factor, factor by factor."""
    halves = words.view(torch.int32)
    for factor in factors:
        halves[..., ::2].bitwise_xor_(halves[..., 1::2])  # `^=` would copy the result once more
        words.mul_(factor)
    return words


# the constants of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), as signed integers
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64
_FACTORS = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64

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


@contextmanager
def random_streams(*parts: int | str) -> Iterator[None]:
    """Seed the global streams of `random`, numpy and torch inside, and restore them after.

    It serves libraries without generator arguments (augmentation, dropout). The stream of the
    current CUDA device is seeded too if CUDA is initialised.
    """
    with kept_streams():
        seed_streams(*parts)
        yield


@contextmanager
def kept_streams() -> Iterator[None]:
    """Restore the global streams after calls of `seed_streams` inside.

    Use it once for many images: saving numpy's state takes as long as preparing a small image.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(_cuda_devices()):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def seed_streams(*parts: int | str) -> None:
    """Seed the global streams; only to be called inside `kept_streams`, which restores them."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if _cuda_devices():
        torch.cuda.manual_seed(seed)


def _cuda_devices() -> list[int]:
    # not all devices: a process uses one, and a forked loader worker must not initialise CUDA
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
