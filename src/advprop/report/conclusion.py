"""Which method to use and what it costs, in sentences that the numbers support.

A method wins only where it is significantly better, after Holm's correction for the number of
methods, than vanilla training of equal cost: a gain over vanilla of equal epochs alone may be
what more training would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from advprop.evaluation.cells import points_text
from advprop.evaluation.results import (
    EQUAL_COST,
    VANILLA,
    difference_of,
    is_baseline,
    kind_of,
)
from advprop.report.rivals import CLEAN, LEVEL, Comparison, Entry, compare_best, named

OTHER_IMAGES = {"noise_accuracy": "noise", "adversarial_accuracy": "attack"}


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """The answer in a sentence, its cost, and (term, sentence) pairs behind it; plain text."""

    headline: str
    cost: str = ""
    points: tuple[tuple[str, str], ...] = ()


def conclude(summary: Sequence[Entry]) -> Conclusion:
    """The conclusion of a comparison, of a single run, or of nothing yet."""
    measured = [entry for entry in summary if CLEAN in entry]
    if not measured:
        return Conclusion(headline="No run has been tested yet.")
    leader = max(measured, key=lambda entry: entry[CLEAN]["mean"])
    if len(measured) == 1:
        headline = f"{leader['method']} gets {percent(leader)} of the clean images right."
        lonely = "It is the only method run: there is nothing to compare it with."
        return Conclusion(headline=headline, cost=f"{lonely} {_cost(leader, None)}")
    headline, told = _headline(measured, leader)
    points = [("Clean images", text) for text in _clean_evidence(measured)]
    for accuracy, name in OTHER_IMAGES.items():
        points += [(f"Under {name}", text) for text in _robustness(measured, accuracy)]
    points.append(("How sure", _certainty(measured)))
    cost = _cost(told, named(measured, VANILLA))
    return Conclusion(headline=headline, cost=cost, points=tuple(points))


def sternest(summary: Sequence[Entry], accuracy: str) -> Comparison | None:
    """The best method against vanilla of equal cost, or of equal epochs where that is missing."""
    return compare_best(summary, EQUAL_COST, accuracy) or compare_best(summary, VANILLA, accuracy)


def _headline(summary: Sequence[Entry], leader: Entry) -> tuple[str, Entry]:
    """The answer, and the method whose cost is to be told."""
    first = sternest(summary, CLEAN)
    if first is None:
        return _without_rivals(summary, leader), leader
    if first.corrected is None:
        seeds = "one seed a method" if first.difference["n"] < 2 else "seeds that do not differ"
        return (
            f"Not decided: with {seeds}, a difference cannot be told from chance. "
            f"{leader['method']} is highest on clean images, {percent(leader)}."
        ), leader
    if first.better:
        equal = first.baseline == EQUAL_COST
        against = "vanilla of equal cost" if equal else "vanilla of equal epochs"
        doubt = "" if equal else " Vanilla of equal cost was not run: it might do as well."
        gain = points_text(first.difference["difference"])
        return (
            f"Use {first.best['method']}: {percent(first.best)} of the clean images right, "
            f"{gain} points against {against}.{doubt}"
        ), first.best
    return _without_winner(summary, first)


def _without_winner(summary: Sequence[Entry], first: Comparison) -> tuple[str, Entry]:
    longer, plain = named(summary, EQUAL_COST), compare_best(summary, VANILLA, CLEAN)
    vanilla, name = named(summary, VANILLA), first.best["method"]
    if longer and first.worse:
        return (
            f"Train vanilla longer: at equal cost it is better on clean images than {name}, "
            "the best of the other methods."
        ), longer
    if longer and _gains_by_length(longer):
        return (
            "Train vanilla longer if clean accuracy is all you need: at equal cost no other "
            "method is significantly better."
        ), longer
    if plain and plain.better:
        return (
            f"{name} beats vanilla of equal epochs on clean images, but not vanilla of equal "
            "cost: its gain cannot be told from that of longer training."
        ), first.best
    return (
        "Stay with vanilla for clean accuracy until more runs say otherwise: "
        "no other method is significantly better."
    ), vanilla or longer or first.best


def _gains_by_length(longer: Entry) -> bool:
    gain = difference_of(longer, VANILLA, CLEAN)
    if gain is None or gain["p_value"] is None:
        return False
    return bool(gain["difference"] > 0 and gain["p_value"] < LEVEL)


def _without_rivals(summary: Sequence[Entry], leader: Entry) -> str:
    best = f"{leader['method']} is highest on clean images, {percent(leader)}"
    if any(not is_baseline(entry) for entry in summary):
        return f"{best}; no vanilla run of the same seeds stands beside it, so its gain is unknown."
    return f"{best}; only vanilla training was run."


def _clean_evidence(summary: Sequence[Entry]) -> list[str]:
    found = [
        comparison
        for baseline in (EQUAL_COST, VANILLA)
        if (comparison := compare_best(summary, baseline, CLEAN)) is not None
    ]
    if not found:
        return []
    kinds = {EQUAL_COST: "vanilla of equal cost", VANILLA: "vanilla of equal epochs"}
    texts = [f"{c.text} against {kinds[c.baseline]}{_judged(c)}" for c in found]
    return [f"{found[0].best['method']} gets {percent(found[0].best)}: {'; '.join(texts)}."]


def _robustness(summary: Sequence[Entry], accuracy: str) -> list[str]:
    found = sternest(summary, accuracy)
    if found is None:
        return []
    name, reached = found.best["method"], percent(found.best, accuracy)
    baseline = next(entry for entry in summary if kind_of(entry) == found.baseline)
    text = (
        f"{name} keeps {reached} where {baseline['method']} keeps {percent(baseline, accuracy)}: "
        f"{found.text}{_judged(found)}."
    )
    if found.better:
        text += f" Use {name} where this matters; on clean images it gets {percent(found.best)}."
    return [text]


def _judged(found: Comparison) -> str:
    return "" if found.significant else ", not significant"


def _certainty(summary: Sequence[Entry]) -> str:
    seeds = min(entry[CLEAN]["n"] for entry in summary)
    text = f"{seeds} seed{'s' if seeds > 1 else ''} a method, one test set for all."
    found = sternest(summary, CLEAN)
    if found is not None and (interval := found.difference["ci95"]):
        half = 100 * (interval[1] - interval[0]) / 2
        text += f" Clean differences below about {half:.1f} points cannot be seen with these runs."
    if found is not None and found.rivals > 1 and found.corrected is not None:
        text += f" The p-values here are corrected for {found.rivals} methods (Holm)."
    return text + (" More seeds narrow the intervals." if seeds < 10 else "")


def _cost(entry: Entry, vanilla: Entry | None) -> str:
    passes, epochs = entry.get("passes_per_image"), entry.get("epochs")
    if passes is None or epochs is None:
        return f"The cost of {entry['method']} was not recorded."
    seconds = entry.get("train_seconds")
    text = (
        f"{entry['method']} costs {_count(passes, 'pass', 'passes')} per image for "
        f"{_count(epochs, 'epoch', 'epochs')}"
    )
    text += "" if seconds is None else f", {_duration(seconds)} a run here"
    if vanilla is not None and vanilla is not entry and vanilla.get("total_passes"):
        text += f"; {entry['total_passes'] / vanilla['total_passes']:.3g} times vanilla's passes"
        if seconds and vanilla.get("train_seconds"):
            text += f", {seconds / vanilla['train_seconds']:.2g} times its seconds"
    return f"{text}. A trained network costs the same to run, whatever the method."


def percent(entry: Entry, accuracy: str = CLEAN) -> str:
    """The mean of `accuracy` in percent."""
    return f"{100 * entry[accuracy]['mean']:.1f} %"


def _count(number: float, one: str, many: str) -> str:
    return f"{number:.3g} {one if number == 1 else many}"


def _duration(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds < 600 else f"{seconds / 60:,.0f} min"
