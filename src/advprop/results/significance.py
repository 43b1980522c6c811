"""What chance may have done: intervals and p-values over seeds, and when a difference counts.

The command line, the tables, the figures and the sentences of the report all ask here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtr, stdtrit

# Accuracies are multiples of one over the number of images: a spread below this is rounding.
NO_SPREAD = 1e-9
FEWEST_SEEDS = 3
"""With fewer seeds no interval and no p-value is given: of two, t is 12.7."""
LEVEL = 0.05
"""A difference is significant where its p-value, corrected by Holm's method, is below this."""
_USUAL_SEEDS, _MOST_SEEDS = 5, 100
_POWER = 0.8


def mean_interval(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """Mean of `values` and its 95 % Student t interval, None where it cannot be estimated."""
    mean = fmean(values)
    if len(values) < FEWEST_SEEDS or (spread := stdev(values)) < NO_SPREAD:
        return mean, None
    half = float(stdtrit(len(values) - 1, 0.975)) * spread / math.sqrt(len(values))
    return mean, [mean - half, mean + half]


def paired_difference(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Mean of `ours - theirs`, its 95 % interval, two-sided p of the paired t-test, pairs `n`."""
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
    """Holm's correction of `p_values` for their number; None stays None and does not count."""
    ranked = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(ranked):
        highest = max(highest, min(1.0, p * (len(ranked) - rank)))
        corrected[i] = highest
    return corrected


def is_significant(difference: Mapping[str, Any]) -> bool:
    """Whether chance alone would rarely do this, the number of methods tried considered."""
    p_value = difference.get("p_holm")
    return p_value is not None and p_value < LEVEL


def seeds_missing(difference: Mapping[str, Any], rivals: int = 1) -> int | None:
    """So many seeds more would show a difference as large as this one, in four cases of five.

    With too few seeds to know their spread: those that are missing to five. None where a hundred
    would not do. `rivals` is the number of methods that the p-value is corrected for.
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
