"""Random numbers as a hash of seeds, which a device draws for all images in a few kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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
