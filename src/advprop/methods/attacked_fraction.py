"""Batches of which a fraction, the last images, is adversarial only, and the rest clean only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.gradients import scaled_gradients
from advprop.methods.step import unwrapped

_FEWEST = 2  # images of a kind; of a single one there are no batch statistics


def num_clean(batch_size: int, attacked_fraction: float) -> int:
    """The number of clean images in a batch of which `attacked_fraction`, rounded, is attacked.

    Raises ValueError if that leaves too few of either kind.
    """
    attacked = round(attacked_fraction * batch_size)
    clean = batch_size - attacked
    if min(clean, attacked) < _FEWEST:
        raise ValueError(
            f"attacked_fraction {attacked_fraction} of {batch_size} images makes "
            f"{attacked} adversarial and {clean} clean, at least {_FEWEST} of each are needed: "
            "take larger batches (less gradient_accumulation, no small last batch) or another "
            "fraction"
        )
    return clean


def check_fraction(fraction: float) -> None:
    """Raise ValueError for a fraction that is not at least 0 and below 1."""
    if not 0 <= fraction < 1:
        raise ValueError(f"attacked_fraction {fraction}: give one of at least 0 and below 1")


def check_branch_is_used(fraction: float, auxiliary: Sequence[str]) -> None:
    """Raise ValueError if no image goes through an auxiliary branch, on several processes."""
    if fraction == 0 and auxiliary:
        raise ValueError(
            "attacked_fraction 0 on several processes: the auxiliary branch gets no gradient, and "
            "DistributedDataParallel waits for one; set method.attacked_fraction above 0, or train "
            "vanilla, which is the same"
        )


def at_same_speed(model: nn.Module, shares: Mapping[str, float]) -> AbstractContextManager[None]:
    """Have one pass inside divide each branch's own gradients by the branch's share of the images.

    So they are as large as if all images had gone through it.
    """
    factors = {branch: 1 / share for branch, share in shares.items()}
    reduced = isinstance(model, DistributedDataParallel)
    return scaled_gradients(unwrapped(model), factors, reduced=reduced)
