"""Batches whose last images, a given fraction, are adversarial only, and the others clean only."""

from __future__ import annotations

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
