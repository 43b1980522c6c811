"""Estimates means and differences of suite results over the seeds of a method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advprop.report.findings import Found
from advprop.results.significance import mean_interval
from advprop.results.summary import EQUAL_COST, VANILLA, group_of, kind_of

Z95 = 1.959964
REFERENCES = (EQUAL_COST, VANILLA)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over `n` seeds; `ends` are those of its 95 % interval, None if it has no interval."""

    mean: float
    ends: tuple[float, float] | None
    n: int

    @property
    def percent(self) -> str:
        """Return the mean in percent and, if known, its interval clipped to 0 to 100, as text."""
        text = f"{100 * self.mean:.1f} %"
        if self.ends is None:
            return text
        low, high = (100 * min(max(end, 0.0), 1.0) for end in self.ends)
        return f"{text} ({low:.1f} to {high:.1f})"


def estimate(values: Sequence[float], *, num_images: int | None = None) -> Estimate:
    """Return the mean with Student's t interval; for one seed, Wilson's over `num_images`."""
    mean, interval = mean_interval(values)
    ends = None if interval is None else (interval[0], interval[1])
    if len(values) == 1 and num_images:
        ends = wilson(mean, num_images)
    return Estimate(mean=mean, ends=ends, n=len(values))


def wilson(share: float, count: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of `count` images."""
    square = Z95 * Z95 / count
    middle = (share + square / 2) / (1 + square)
    half = Z95 * math.sqrt(share * (1 - share) / count + square / (4 * count)) / (1 + square)
    return middle - half, middle + half


def paired(
    ours: Sequence[tuple[str, float]], theirs: Sequence[tuple[str, float]]
) -> Estimate | None:
    """Return the mean difference of two lists of (seed, value) pairs over the seeds in both.

    Without such a seed it is the difference of the two means, without an interval. Returns None if
    a list is empty.
    """
    if not ours or not theirs:
        return None
    other = dict(theirs)
    differences = [value - other[seed] for seed, value in ours if seed in other]
    if differences:
        return estimate(differences)
    means = (sum(value for _, value in side) / len(side) for side in (ours, theirs))
    return Estimate(mean=next(means) - next(means), ends=None, n=0)


def references(found: Found, summary: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the reference method of each method of `found`, which belongs to the same group.

    This is vanilla at equal cost, else vanilla, else the group's first method. A group's reference
    has none itself.
    """
    entries = {str(entry["method"]): entry for entry in summary}
    groups: dict[str, dict[str, str]] = {}
    for method in found:
        entry = entries.get(method, {"method": method})
        groups.setdefault(group_of(entry), {})[method] = kind_of(entry)
    chosen: dict[str, str] = {}
    for kinds in groups.values():
        known = [m for kind in REFERENCES for m, own in kinds.items() if own == kind]
        reference = [*known, *kinds][0]
        order = sorted(kinds, key=lambda method: kinds[method] in REFERENCES)
        chosen |= {method: reference for method in order if method != reference}
    return chosen
