"""Which method to use and what it costs, in sentences that the numbers support.

A method wins only where it is significantly better, after Holm's correction for the number of
methods, than vanilla training of equal cost: a gain over vanilla of equal epochs alone may be
what more training would have given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advprop.evaluation.results import (
    BASELINES,
    EQUAL_COST,
    VANILLA,
    difference_of,
    holm,
    p_text,
    points_text,
)

Entry = Mapping[str, Any]
LEVEL = 0.05
CLEAN = "clean_accuracy"


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The answer in one sentence, and (term, sentence) pairs that support it; plain text."""

    headline: str
    points: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The best method against one baseline: its difference, judged among all `rivals` methods."""

    best: Entry
    baseline: str
    difference: dict[str, Any]
    corrected: float | None
    rivals: int

    @property
    def better(self) -> bool:
        """Significantly above the baseline."""
        return self._significant and self.difference["difference"] > 0

    @property
    def worse(self) -> bool:
        """Significantly below the baseline."""
        return self._significant and self.difference["difference"] < 0

    @property
    def _significant(self) -> bool:
        return self.corrected is not None and self.corrected < LEVEL

    @property
    def text(self) -> str:
        """Difference, interval and p-values, in words."""
        parts = [f"{points_text(self.difference['difference'])} points"]
        if interval := self.difference["ci95"]:
            parts.append(f"95 % interval {' to '.join(map(points_text, interval))}")
        if self.corrected is not None:
            parts.append(p_text(self.difference["p_value"]))
            if self.rivals > 1:
                parts.append(f"corrected for {self.rivals} methods {p_text(self.corrected)}")
        return ", ".join(parts)


def conclude(summary: Sequence[Entry]) -> Conclusion:
    """The conclusion of a comparison, of a single run, or of nothing yet."""
    measured = [entry for entry in summary if CLEAN in entry]
    if not measured:
        return Conclusion(headline="No run has been tested yet.")
    leader = max(measured, key=lambda entry: entry[CLEAN]["mean"])
    if len(measured) == 1:
        text = f"{leader['method']} gets {_accuracy(leader)} of the clean test images right."
        return Conclusion(
            headline=f"{text} It is the only method run: there is nothing to compare it with.",
            points=(("Cost", _cost(leader, None)),),
        )
    headline, named = _headline(measured, leader)
    points = [("Cost", _cost(named, _named(measured, VANILLA)))]
    points += [("Clean images", text) for text in _clean_evidence(measured)]
    points += [("Under noise", text) for text in _robustness(measured, "noise_accuracy")]
    points += [("Under attack", text) for text in _robustness(measured, "adversarial_accuracy")]
    return Conclusion(headline=headline, points=(*points, ("How sure", _certainty(measured))))


def compare_best(summary: Sequence[Entry], baseline: str, accuracy: str) -> Comparison | None:
    """The method (no baseline) of highest `accuracy` against `baseline`; None if not measured."""
    rivals = [entry for entry in summary if entry["method"] not in BASELINES and accuracy in entry]
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


def _headline(summary: Sequence[Entry], leader: Entry) -> tuple[str, Entry]:
    """The answer, and the method whose cost is to be told."""
    equal = compare_best(summary, EQUAL_COST, CLEAN)
    plain = compare_best(summary, VANILLA, CLEAN)
    first = equal or plain
    if first is None:
        return _without_rivals(summary, leader), leader
    name = first.best["method"]
    if all(c is None or c.corrected is None for c in (equal, plain)):
        seeds = "one seed a method" if first.difference["n"] < 2 else "seeds that do not differ"
        return (
            f"Not decided: from {seeds} a difference cannot be told from chance. "
            f"{leader['method']} has the highest clean accuracy, {_accuracy(leader)}."
        ), leader
    if first.better:
        against = "vanilla of equal cost" if equal else "vanilla of equal epochs"
        doubt = "" if equal else " Vanilla of equal cost was not run: it might do as well."
        gain = points_text(first.difference["difference"])
        return (
            f"Use {name}: {_accuracy(first.best)} of the clean test images right, "
            f"{gain} points against {against}.{doubt}"
        ), first.best
    return _without_winner(summary, equal, plain, first)


def _without_winner(
    summary: Sequence[Entry], equal: Comparison | None, plain: Comparison | None, first: Comparison
) -> tuple[str, Entry]:
    longer, vanilla = _named(summary, EQUAL_COST), _named(summary, VANILLA)
    name = first.best["method"]
    if equal and equal.worse and longer:
        return (
            f"Train vanilla longer: at equal cost it is better on clean images than {name}, "
            "the best of the other methods."
        ), longer
    gain = difference_of(longer, VANILLA, CLEAN) if longer else None
    longer_is_better = bool(
        gain and gain["difference"] > 0 and gain["p_value"] is not None and gain["p_value"] < LEVEL
    )
    if longer_is_better and longer:
        return (
            "Train vanilla longer if clean accuracy is all you need: at equal cost no other "
            "method is significantly better."
        ), longer
    if plain and plain.better:
        return (
            f"{name} beats vanilla of equal epochs on clean images, but not vanilla of equal "
            "cost: its gain cannot be told from that of longer training."
        ), first.best
    text = "Stay with vanilla for clean accuracy: no dearer method is significantly better."
    return text, vanilla or first.best


def _without_rivals(summary: Sequence[Entry], leader: Entry) -> str:
    best = f"{leader['method']} has the highest clean accuracy, {_accuracy(leader)}"
    if not any(entry["method"] in BASELINES for entry in summary):
        return f"{best}; no vanilla run stands beside it, so what the method adds is not known."
    return f"{best}; only vanilla training was compared."


def _clean_evidence(summary: Sequence[Entry]) -> list[str]:
    found = [compare_best(summary, baseline, CLEAN) for baseline in reversed(BASELINES)]
    texts = [
        f"{_against(c.baseline)} {c.text}" + ("." if c.better or c.worse else ": not significant.")
        for c in found
        if c is not None
    ]
    best = next((c.best for c in found if c is not None), None)
    if best is None:
        return []
    return [f"{best['method']} gets {_accuracy(best)}. {' '.join(texts)}"]


def _robustness(summary: Sequence[Entry], accuracy: str) -> list[str]:
    found = compare_best(summary, EQUAL_COST, accuracy) or compare_best(summary, VANILLA, accuracy)
    if found is None:
        return []
    baseline = _named(summary, found.baseline)
    assert baseline is not None, "a difference needs its baseline"
    name, reached = found.best["method"], _accuracy(found.best, accuracy)
    kept = f"{name} keeps {reached}, {found.baseline} {_accuracy(baseline, accuracy)}"
    if found.better:
        return [f"{kept}: use {name} where this matters ({found.text})."]
    if found.worse:
        return [f"{kept}: no method is better here ({found.text})."]
    return [f"{kept}: not a significant difference ({found.text})."]


def _certainty(summary: Sequence[Entry]) -> str:
    seeds = min(entry[CLEAN]["n"] for entry in summary)
    found = compare_best(summary, EQUAL_COST, CLEAN) or compare_best(summary, VANILLA, CLEAN)
    text = f"{seeds} seed{'s' if seeds > 1 else ''} a method, one test set for all."
    if found is not None and (interval := found.difference["ci95"]):
        half = 100 * (interval[1] - interval[0]) / 2
        text += f" Clean differences below about {half:.1f} points cannot be seen with so few runs."
    if seeds < 10:
        text += " More seeds narrow the intervals (--seeds)."
    return text


def _cost(entry: Entry, vanilla: Entry | None) -> str:
    passes, epochs = entry.get("passes_per_image"), entry.get("epochs")
    if passes is None or epochs is None:
        return f"The cost of {entry['method']} was not recorded."
    seconds = entry.get("train_seconds")
    clock = "" if seconds is None else f", {_seconds(seconds)} a run here"
    text = (
        f"{entry['method']} takes {_count(passes, 'pass', 'passes')} per image for "
        f"{_count(epochs, 'epoch', 'epochs')}{clock}"
    )
    if vanilla is not None and vanilla is not entry and vanilla.get("total_passes"):
        text += f": {entry['total_passes'] / vanilla['total_passes']:.3g} times vanilla's passes"
        if seconds and vanilla.get("train_seconds"):
            text += f", {seconds / vanilla['train_seconds']:.2g} times its seconds"
    return f"{text}. A trained network costs the same to run whatever the method."


def _against(baseline: str) -> str:
    return f"Against vanilla of equal {'cost' if baseline == EQUAL_COST else 'epochs'}:"


def _named(summary: Sequence[Entry], method: str) -> Entry | None:
    return next((entry for entry in summary if entry["method"] == method), None)


def _accuracy(entry: Entry, accuracy: str = CLEAN) -> str:
    return f"{100 * entry[accuracy]['mean']:.1f} %"


def _count(number: float, one: str, many: str) -> str:
    return f"{number:.3g} {one if number == 1 else many}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:,.0f} min"
