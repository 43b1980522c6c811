"""The summary of finished runs: means, 95 % intervals, differences paired by seed.

These functions work on the plain dictionaries of `results.json` (see docs/results.md), so that the
command line, the report and a notebook read the same numbers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from statistics import fmean
from typing import Any

from advprop.results.significance import FEWEST_SEEDS, holm, mean_interval, paired_difference

Run = Mapping[str, Any]

VANILLA, EQUAL_COST = "vanilla", "vanilla_equal_cost"
BASELINES = (VANILLA, EQUAL_COST)
ACCURACIES = ("clean_accuracy", "noise_accuracy", "adversarial_accuracy")
LABEL_MEASURES = {"auroc": "AUROC", "average_precision": "average precision", "f1": "F1"}
"""Further measures of suites on images with several labels, as in `clean_auroc`, in words."""
# validation accuracies serve to choose a checkpoint and are not reported as results
_CHOOSING = ("validation_accuracy", "best_validation_accuracy")
COSTS = ("epochs", "passes_per_image", "total_passes", "train_seconds")


def summarise(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Return the `summary` of `results.json`: one entry per method, vanilla first.

    `method` may be any label. A run may name its training method (`kind`) and the `group` of runs
    that it is compared with: the baselines are the runs of the same group whose kind is vanilla or
    vanilla_equal_cost. Intervals are Student's t over seeds, differences are paired by seed;
    `ci95`, `p_value` and `p_holm` are None if there are fewer than three seeds or their values do
    not differ. Raises ValueError for an accuracy outside 0 to 1, and for two runs of one method and
    seed.
    """
    by_method = _by_method(runs)
    names = accuracy_names(runs)
    baselines = {
        (group_of(run), kind_of(run)): by_seed
        for by_seed in by_method.values()
        for run in by_seed.values()
        if kind_of(run) in BASELINES
    }
    entries = [_entry(method, by_seed, names, baselines) for method, by_seed in by_method.items()]
    return corrected(entries)


def corrected(summary: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return copies of the entries of `summary` whose differences have `p_holm`.

    That p-value decides significance. It is corrected by Holm's method for the number of methods
    that are compared with the same baseline of the same group in the same accuracy. The comparison
    of vanilla at equal cost with vanilla at equal epochs is corrected separately.
    """
    entries = [deepcopy(dict(entry)) for entry in summary]
    families: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in entries:
        own = (group_of(entry), kind_of(entry) if is_baseline(entry) else "")
        for baseline, versus in (entry.get("versus") or {}).items():
            others = {key: value for key, value in versus.items() if is_accuracy(key)}
            for accuracy, found in {"clean_accuracy": versus, **others}.items():
                families.setdefault((*own, baseline, accuracy), []).append(found)
    for family in families.values():
        p_values = [f.get("p_value") if f["n"] >= FEWEST_SEEDS else None for f in family]
        for found, p_value in zip(family, holm(p_values), strict=True):
            found["p_holm"] = p_value
    return entries


def kind_of(entry: Mapping[str, Any]) -> str:
    """Return the training method of a run or a summary entry, whatever its label."""
    return str(entry.get("kind") or entry["method"])


def group_of(entry: Mapping[str, Any]) -> str:
    """Return the group within which a run or a summary entry is compared; "" by default."""
    return str(entry.get("group") or "")


def is_baseline(entry: Mapping[str, Any]) -> bool:
    """Return whether a summary entry is vanilla training, at equal epochs or at equal cost."""
    return kind_of(entry) in BASELINES


def is_accuracy(key: str) -> bool:
    """Return whether `key` names an accuracy or one of `LABEL_MEASURES`, which are fractions."""
    return key.endswith(tuple(f"_{name}" for name in ("accuracy", *LABEL_MEASURES)))


def headline_names(entries: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the names of the three usual accuracies, or of their AUROC for several labels."""
    several = any("clean_auroc" in entry for entry in entries)
    return (
        tuple(name.replace("_accuracy", "_auroc") for name in ACCURACIES) if several else ACCURACIES
    )


def accuracy_names(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the names of all accuracies in `entries` (runs or summary): `ACCURACIES` first."""
    found = dict.fromkeys(
        key
        for entry in entries
        for key, value in entry.items()
        if is_accuracy(key) and key not in _CHOOSING and value is not None
    )
    return [*(name for name in ACCURACIES if name in found), *sorted({*found} - {*ACCURACIES})]


def _entry(
    method: str,
    by_seed: Mapping[Any, Run],
    names: Sequence[str],
    baselines: Mapping[tuple[str, str], Mapping[Any, Run]],
) -> dict[str, Any]:
    runs = list(by_seed.values())
    group, kind = group_of(runs[0]), kind_of(runs[0])
    return {
        "method": method,
        **{key: runs[0][key] for key in ("kind", "group") if runs[0].get(key)},
        "seeds": sorted(by_seed),
        **_accuracies(runs, names),
        **_costs(runs),
        "versus": {
            baseline: _versus(by_seed, baselines[group, baseline], names)
            for baseline in BASELINES
            if (group, baseline) in baselines and baseline != kind
        },
    }


def _by_method(runs: Iterable[Run]) -> dict[str, dict[Any, Run]]:
    found: dict[str, dict[Any, Run]] = {}
    for run in runs:
        method, seed = run["method"], run["seed"]
        for key in accuracy_names([run]):
            _check_fraction(run.get(key), f"{key} of {method}, seed {seed}")
        if seed in found.setdefault(method, {}):
            raise ValueError(
                f"two runs of method {method} and seed {seed}: one for each is allowed, "
                "remove one or give it another seed"
            )
        found[method][seed] = run
    one = {method: next(iter(by_seed.values())) for method, by_seed in found.items()}
    groups = list(dict.fromkeys(group_of(run) for run in one.values()))
    rank = {baseline: place for place, baseline in enumerate(BASELINES)}
    order = sorted(
        one, key=lambda m: (groups.index(group_of(one[m])), rank.get(kind_of(one[m]), len(rank)))
    )
    return {method: found[method] for method in order}


def _check_fraction(value: Any, what: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise ValueError(
            f"{what} is {value!r}: accuracies are fractions from 0 to 1, divide percentages by 100"
        )


def _accuracies(runs: Sequence[Run], names: Sequence[str]) -> dict[str, Any]:
    found = {}
    for key in names:
        values = [float(run[key]) for run in runs if run.get(key) is not None]
        if values:
            mean, interval = mean_interval(values)
            found[key] = {"mean": mean, "ci95": interval, "n": len(values)}
    return found


def _costs(runs: Sequence[Run]) -> dict[str, float]:
    costs = {key: [_cost(run, key) for run in runs] for key in COSTS}
    known = {key: [v for v in values if v is not None] for key, values in costs.items()}
    return {key: fmean(values) for key, values in known.items() if values}


def _cost(run: Run, key: str) -> float | None:
    if key == "total_passes" and run.get(key) is None:
        parts = run.get("epochs"), run.get("passes_per_image")
        return None if None in parts else float(parts[0] * parts[1])  # type: ignore[operator]
    value = run.get(key)
    return None if value is None else float(value)


def _versus(
    ours: Mapping[Any, Run], theirs: Mapping[Any, Run], names: Sequence[str]
) -> dict[str, Any]:
    """Return the differences ours - theirs by accuracy; that in clean accuracy is the top level."""
    shared = [seed for seed in ours if seed in theirs]
    found: dict[str, Any] = {}
    for key in dict.fromkeys(["clean_accuracy", *names]):
        pairs = [(ours[seed].get(key), theirs[seed].get(key)) for seed in shared]
        whole = [(a, b) for a, b in pairs if a is not None and b is not None]
        found[key] = paired_difference([a for a, _ in whole], [b for _, b in whole])
    clean = found.pop("clean_accuracy")
    return {**clean, **{key: value for key, value in found.items() if value["n"]}}


def difference_of(entry: Mapping[str, Any], baseline: str, accuracy: str) -> dict[str, Any] | None:
    """Return the comparison of `entry` with `baseline` in `accuracy`, or None if not measured."""
    versus = entry.get("versus", {}).get(baseline)
    found = versus if versus is None or accuracy == "clean_accuracy" else versus.get(accuracy)
    return None if found is None or found.get("difference") is None else dict(found)
