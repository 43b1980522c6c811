"""Confidence intervals and p-values over seeds, and the test of significance.

The command line and the report's tables, figures and sentences all use these functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtr, stdtrit

# Accuracies are multiples of 1 / number of images: a smaller spread is a rounding error.
NO_SPREAD = 1e-9
FEWEST_SEEDS = 3
"""The fewest seeds that give an interval and a p-value: with two seeds, Student's t is 12.7."""
LEVEL = 0.05
"""A difference is significant if its Holm-corrected p-value is below this level."""
_USUAL_SEEDS, _MOST_SEEDS = 5, 100
_POWER = 0.8


def mean_interval(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """Return the mean of `values` and its 95 % Student t interval [low, high].

    The interval is None if there are fewer than three values or they do not differ.
    """
    mean = fmean(values)
    if len(values) < FEWEST_SEEDS or (spread := stdev(values)) < NO_SPREAD:
        return mean, None
    half = float(stdtrit(len(values) - 1, 0.975)) * spread / math.sqrt(len(values))
    return mean, [mean - half, mean + half]


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the mean `difference` ours - theirs, its `ci95`, its `p_value` and the pairs `n`.

    The p-value is that of the paired two-sided t-test, None where `mean_interval` has no interval.
    """
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    if not differences:
        return {"difference": None, "ci95": None, "p_value": None, "n": 0}
    mean, interval = mean_interval(differences)
    p_value = None
    if interval is not None:
        t = mean / (stdev(differences) / math.sqrt(len(differences)))
        p_value = 2 * float(stdtr(len(differences) - 1, -abs(t)))
    return {"difference": mean, "ci95": interval, "p_value": p_value, "n": len(differences)}


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return `p_values` with Holm's correction; None stays None and does not count as a test."""
    ranked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - rank)))
        corrected[i] = highest
    return corrected


def is_significant(difference: Mapping[str, Any]) -> bool:
    """Return whether the Holm-corrected p-value of `difference` is below `LEVEL`."""
    p_value = difference.get("p_holm")
    return p_value is not None and p_value < LEVEL


def seeds_missing(difference: Mapping[str, Any], rivals: int = 1) -> int | None:
    """Return how many more seeds would make this difference significant with 80 % power.

    Returns the number missing to five seeds if there are too few to estimate the spread, and None
    if 100 seeds would not suffice. `rivals` is the number of methods in Holm's correction.
    """
    count: int = difference["n"]
    interval: list[float] | None = difference["ci95"]
    if interval is None:
        return max(1, _USUAL_SEEDS - count)
    half = (interval[1] - interval[0]) / 2
    spread = half * math.sqrt(count) / float(stdtrit(count - 1, 0.975))
    for total in range(count + 1, _MOST_SEEDS + 1):
        needed = stdtrit(total - 1, 1 - LEVEL / rivals / 2) + stdtrit(total - 1, _POWER)
        if abs(difference["difference"]) * math.sqrt(total) >= needed * spread:
            return total - count
    return None
