"""Batches whose first images are clean only, and whose last are adversarial only."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from advprop.methods.base import Context, KindMetrics, learn, learn_together, through
from advprop.shapes import Batch

_FEWEST = 2  # images of a kind; of a single one there are no batch statistics


def num_clean(batch_size: int, attacked_fraction: float) -> int:
    """How many images of a batch are clean, where `attacked_fraction` of it, rounded, is not.

    Raises ValueError where that leaves too few of either kind.
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


def check_attacked_fraction(fraction: float) -> None:
    """Raise ValueError for what is no share of a batch, or all of it."""
    if not 0 <= fraction < 1:
        raise ValueError(f"attacked_fraction {fraction}: give one of at least 0 and below 1")


def learn_parts(
    model: nn.Module,
    parts: Mapping[str, Batch],
    context: Context,
    weights: Mapping[str, float],
    *,
    joint: bool,
    through_branches: bool = True,
) -> dict[str, KindMetrics]:
    """Learn from each part, its mean loss times its weight.

    `joint` runs one forward and backward pass over all of them; `through_branches` sends each part
    through the branch of its name.
    """
    if joint:
        sizes = [len(part) for part in parts.values()]
        with through(model, tuple(parts), shares=sizes, separate=through_branches):
            found = learn_together(
                model, [*parts.values()], context, weights=[weights[kind] for kind in parts]
            )
        return dict(zip(parts, found, strict=True))
    alone = {}
    for kind, part in parts.items():
        with through(model, kind, separate=through_branches):
            alone[kind] = learn(model, part.images, part.labels, context, weight=weights[kind])
    return alone
