"""The best method against a baseline, judged among all methods that were tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advprop.evaluation.cells import p_text, points_text
from advprop.evaluation.results import difference_of, holm, is_baseline, kind_of

Entry = Mapping[str, Any]
LEVEL = 0.05
CLEAN = "clean_accuracy"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The method of highest accuracy, its difference to `baseline`, and p among all `rivals`."""

    best: Entry
    baseline: str
    difference: dict[str, Any]
    corrected: float | None
    rivals: int

    @property
    def better(self) -> bool:
        """Significantly above the baseline."""
        return self.significant and self.difference["difference"] > 0

    @property
    def worse(self) -> bool:
        """Significantly below the baseline."""
        return self.significant and self.difference["difference"] < 0

    @property
    def significant(self) -> bool:
        """Whether chance alone would rarely do this, the number of methods tried considered."""
        return self.corrected is not None and self.corrected < LEVEL

    @property
    def text(self) -> str:
        """Difference, interval and corrected p-value."""
        interval = [points_text(end) for end in self.difference["ci95"] or ()]
        doubts = [" to ".join(interval)] if interval else []
        doubts += [] if self.corrected is None else [p_text(self.corrected)]
        points = f"{points_text(self.difference['difference'])} points"
        return f"{points} ({', '.join(doubts)})" if doubts else points


def compare_best(summary: Sequence[Entry], baseline: str, accuracy: str) -> Comparison | None:
    """The method (no baseline) of highest `accuracy` against `baseline`; None if not measured."""
    rivals = [entry for entry in summary if not is_baseline(entry) and accuracy in entry]
    found = [(entry, difference_of(entry, baseline, accuracy)) for entry in rivals]
    pairs = [(entry, difference) for entry, difference in found if difference is not None]
    if not pairs:
        return None
    corrected = holm([difference["p_value"] for _, difference in pairs])
    place = max(range(len(pairs)), key=lambda i: pairs[i][0][accuracy]["mean"])
    return Comparison(
        best=pairs[place][0],
        baseline=baseline,
        difference=pairs[place][1],
        corrected=corrected[place],
        rivals=len(pairs),
    )


def named(summary: Sequence[Entry], method: str) -> Entry | None:
    """The entry whose training method is `method`, None where it was not run."""
    return next((entry for entry in summary if kind_of(entry) == method), None)
