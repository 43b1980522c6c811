"""Batches whose last images, a given fraction, are adversarial only, and the others clean only."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from advprop.auxiliary.gradients import scaled_gradients
from advprop.methods.step import unwrapped

_FEWEST = 2  # images of each kind, since one image alone may have no batch statistics


def num_clean(batch_size: int, attacked_fraction: float) -> int:
    """Return the number of clean images in a batch whose rounded `attacked_fraction` is attacked.

    Raises ValueError if fewer than two images of either kind are left.
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
    """Raise ValueError unless `fraction` is at least 0 and below 1."""
    if not 0 <= fraction < 1:
        raise ValueError(f"attacked_fraction {fraction}: give one of at least 0 and below 1")


def check_branch_is_used(fraction: float) -> None:
    """Raise ValueError if no image goes through the auxiliary branch.

    This matters on several processes only, where gradients of all parameters are waited for.
    """
    if fraction == 0:
        raise ValueError(
            "attacked_fraction 0 on several processes: the auxiliary branch gets no gradient, and "
            "DistributedDataParallel waits for one; set method.attacked_fraction above 0, or train "
            "vanilla, which is the same"
        )


def at_same_speed(model: nn.Module, shares: Mapping[str, float]) -> AbstractContextManager[None]:
    """Return a context in which each branch's own gradients are divided by its share of the images.

    They are then as large as if all images had gone through the branch.
    """
    factors = {branch: 1 / share for branch, share in shares.items()}
    reduced = isinstance(model, DistributedDataParallel)
    return scaled_gradients(unwrapped(model), factors, reduced=reduced)
