"""Compares methods with a baseline, corrected for the number of methods tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advprop.results.cells import difference_cell, p_text
from advprop.results.significance import FEWEST_SEEDS, is_significant, seeds_missing
from advprop.results.summary import difference_of, is_baseline, kind_of

Entry = Mapping[str, Any]
CLEAN = "clean_accuracy"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A method's difference from `baseline`; `rivals` methods are compared with that baseline."""

    method: Entry
    baseline: str
    difference: dict[str, Any]
    rivals: int

    @property
    def better(self) -> bool:
        """Return whether the method is significantly above the baseline."""
        return is_significant(self.difference) and self.difference["difference"] > 0

    @property
    def seeds_missing(self) -> int | None:
        """Return how many more seeds may make it significant; None if 100 are too few in all."""
        return seeds_missing(self.difference, self.rivals)

    @property
    def promising(self) -> bool:
        """Return whether the method is above the baseline, and more seeds may confirm it."""
        return self.difference["difference"] > 0 and self.seeds_missing is not None

    @property
    def sure(self) -> str:
        """Return the p-value in words, or the reason why there is none."""
        p_value, seeds = self.difference["p_holm"], self.difference["n"]
        if p_value is not None:
            return p_text(p_value)
        few = f"no p-value with {seeds} seed{'s' * (seeds != 1)}"
        return few if seeds < FEWEST_SEEDS else "no p-value: all seeds differ by the same amount"

    @property
    def text(self) -> str:
        """Return the difference, interval and p-value in words."""
        cell = difference_cell(self.difference)
        parts = [f"95 % interval {cell.interval}"] if self.difference["ci95"] else []
        parts.append(self.sure)
        if cell.p_value and not cell.significant:
            parts.append("not significant")
        return f"{cell.value} points ({', '.join(parts)})"


def compare_all(summary: Sequence[Entry], baseline: str, accuracy: str) -> list[Comparison]:
    """Return the comparison of each method with `baseline`; [] if the baseline is not measured.

    Methods that are significantly better come first; within both parts the order is by `accuracy`.
    """
    rivals = [entry for entry in summary if not is_baseline(entry) and accuracy in entry]
    found = [(entry, difference_of(entry, baseline, accuracy)) for entry in rivals]
    pairs = [(entry, difference) for entry, difference in found if difference is not None]
    comparisons = [
        Comparison(method=entry, baseline=baseline, difference=difference, rivals=len(pairs))
        for entry, difference in pairs
    ]
    return sorted(comparisons, key=lambda c: (not c.better, -c.method[accuracy]["mean"]))


def named(summary: Sequence[Entry], method: str) -> Entry | None:
    """Return the entry whose training method is `method`, or None if it was not run."""
    return next((entry for entry in summary if kind_of(entry) == method), None)
