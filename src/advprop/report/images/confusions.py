"""Tabulates the most frequent confusions of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from advprop.report.findings import Findings

Found = Mapping[str, Sequence[Findings]]
MOST = 15  # pairs in the table


def confusion_table(found: Found) -> dict[str, Any] | None:
    """Return the most confused pairs with their number of images in a run of each method.

    Counts are means over the seeds; a pair that is not in a run's list counts 0.
    """
    by_method = {method: _runs(runs) for method, runs in found.items()}
    by_method = {method: runs for method, runs in by_method.items() if runs}
    means = {
        pair: [fmean(counts.get(pair, 0) for counts in runs) for runs in by_method.values()]
        for pair in dict.fromkeys(
            pair for runs in by_method.values() for counts in runs for pair in counts
        )
    }
    if not means:
        return None
    ranked = sorted(means, key=lambda pair: -sum(means[pair]))
    return {
        "methods": list(by_method),
        "rows": [(*pair, [f"{value:.1f}" for value in means[pair]]) for pair in ranked[:MOST]],
    }


def _runs(runs: Sequence[Findings]) -> list[dict[tuple[str, str], int]]:
    """Return each run's counts by (class, predicted)."""
    return [
        {(item.name, item.predicted): item.count for item in run.suites.clean.confusion}
        for run in runs
        if run.suites.clean.confusion
    ]
