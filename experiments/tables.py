"""The tables of docs/reproducing_tables.md, from what the experiments wrote into `results/`.

python experiments/tables.py > docs/reproducing_tables.md
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from advprop.files.json_files import read_json
from advprop.results.cells import p_text, points_text
from advprop.results.significance import holm, mean_interval, paired_difference

RESULTS = Path(__file__).parent / "results"
COLUMNS = {
    "clean": "clean_accuracy",
    "shift": "shift_accuracy",
    "seen designers": "seen_accuracy",
    "noise": "noise_accuracy",
    "corrupted": "corruptions_accuracy",
    "attacked": "adversarial_accuracy",
}
BASELINES = {
    "vanilla": "vanilla at equal epochs",
    "vanilla_equal_cost": "vanilla at equal cost",
}
HEADING = """# Tables of the experiments

Made by `python experiments/tables.py`; what they mean: [the paper's experiments](reproducing.md).
Means over seeds in percent with 95 % intervals (Student t), differences in points, paired by seed,
with p-values of the paired t-test, by itself and with Holm's correction for its column. Seconds
are of runs side by side on a machine that did other things too: passes compare, and `step`, the
measured time of a training step in those of vanilla, where it was measured. Some methods, such as
`carried`, are in earlier commits only:
[what was taken out](reproducing.md#what-was-measured-and-taken-out)."""
BASELINES_OF = {
    "lengths": {"vanilla": "vanilla of its own length"},
    "lean": {"vanilla": "vanilla at equal time"},
    "budgets": {"vanilla": "vanilla at equal time", "fast": "fast at equal time"},
    "rivals": {"vanilla": "vanilla at equal time", "advprop_lean": "advprop_lean at equal time"},
    "crossover": {
        "vanilla": "vanilla at equal epochs",
        "vanilla_equal_cost": "vanilla at equal cost",
        "mixed": "mixed",
    },
    "together": {"vanilla": "vanilla at equal time", "augmix": "augmix at equal time"},
    "clean_end": {"vanilla": "vanilla at equal time", "lean": "lean at equal time"},
    "lean_strength": {"vanilla": "vanilla at equal time"},
    "lean_longer": {"vanilla": "vanilla at equal time"},
    "robust_start": {"from vanilla_equal_cost": "from vanilla at equal cost"},
}

Rows = Sequence[dict[str, Any]]
Seeds = Mapping[int, dict[str, Any]]


def tables(found: dict[str, Any]) -> Iterator[str]:
    """A table for each group of an experiment, as Markdown."""
    rows: Rows = found["runs"]
    yield f"`{found['command']}`"
    for group in _ordered(row["group"] for row in rows):
        baselines = BASELINES_OF.get(found.get("experiment"), BASELINES)
        yield _accuracies([row for row in rows if row["group"] == group], group, baselines)
    branched = [row for row in rows if "auxiliary_clean_accuracy" in row]
    if branched:
        yield _both_branches(branched)
    soups = [row for row in rows if "soups" in row]
    if soups:
        yield _soups(soups)
    for label in _ordered(row["label"] for row in rows if "distances" in row)[:1]:
        yield _distances([row for row in rows if row["label"] == label], label)


def _both_branches(rows: Rows) -> str:
    """The same images through the clean branch and through the auxiliary one."""
    heads = ["branches", "clean images: clean branch", "auxiliary branch", "clean minus auxiliary"]
    heads += ["attacked, clean branch", "attacked, auxiliary branch"]
    lines = [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
    for label in _ordered(row["label"] for row in rows):
        own = [row for row in rows if row["label"] == label]
        clean, auxiliary, attacked, attacked_auxiliary = (
            [row[f"{name}_accuracy"] for row in own]
            for name in ("clean", "auxiliary_clean", "adversarial", "auxiliary_adversarial")
        )
        cells = [label, _accuracy(clean), _accuracy(auxiliary), _paired(clean, auxiliary)]
        lines.append(_line([*cells, _accuracy(attacked), _accuracy(attacked_auxiliary)]))
    return "\n".join(lines)


def _soups(rows: Rows) -> str:
    """Accuracies of branch soups by weight, and their difference from the clean branch."""
    suites = _ordered(point["suite"] for point in rows[0]["soups"])
    judged = ("clean", "adversarial")
    heads = ["branches", "weight", *suites, *(f"{suite}, minus weight 0" for suite in judged)]
    lines = [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
    for label in _ordered(row["label"] for row in rows):
        values: dict[tuple[str, float], list[float]] = {}
        for point in (point for row in rows if row["label"] == label for point in row["soups"]):
            values.setdefault((point["suite"], point["weight"]), []).append(point["accuracy"])
        for weight in sorted({weight for _, weight in values}):
            cells = [label, f"{weight:g}", *(_accuracy(values[suite, weight]) for suite in suites)]
            cells += [
                _paired(values[suite, weight], values[suite, 0.0]) if weight else ""
                for suite in judged
            ]
            lines.append(_line(cells))
    return "\n".join(lines)


def _distances(rows: Rows, label: str) -> str:
    """How far the branches lie apart in each layer, means over the seeds."""
    keys = ("mean_distance", "variance_ratio", "weight_distance", "bias_distance")
    heads = [f"{label}, layer"]
    heads += [f"{key.replace('_', ' ')}, {when}" for key in keys for when in ("first", "last")]
    lines = [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
    seeds = [row["distances"] for row in rows]
    for position, layer in enumerate(entry["layer"] for entry in seeds[0]["last_epoch"]):
        cells = [layer.removeprefix("model.")]
        for key in keys:
            for when in ("first_epoch", "last_epoch"):
                cells.append(f"{fmean(found[when][position][key] for found in seeds):.3f}")
        lines.append(_line(cells))
    return "\n".join(lines)


def _accuracies(rows: Rows, group: str, titles: Mapping[str, str]) -> str:
    columns = {title: key for title, key in COLUMNS.items() if any(key in row for row in rows)}
    columns = columns or {"validation": "validation_accuracy"}
    judged = next(iter(columns))
    labels = _ordered(row["label"] for row in rows)
    baselines = [name for name in titles if name in labels]
    costs = ["step"] if all("step_cost" in row for row in rows) else []
    heads = [group, *costs, "passes", "seconds", *columns]
    heads += [f"{judged}, minus {titles[name]}" for name in baselines]
    lines = [_line(heads), _line(["---"] + ["---:"] * (len(heads) - 1))]
    seeds = {label: {r["seed"]: r for r in rows if r["label"] == label} for label in labels}
    differences = [_differences(seeds, seeds[name], columns[judged]) for name in baselines]
    for label, own in seeds.items():
        cells = [label, *(f"{_mean(own, 'step_cost'):.2f}" for _ in costs)]
        cells += [*(f"{_mean(own, key):.0f}" for key in ("total_passes", "train_seconds"))]
        cells += [_accuracy([row[key] for row in own.values()]) for key in columns.values()]
        lines.append(_line([*cells, *(found[label] for found in differences)]))
    return "\n".join(lines)


def _mean(own: dict[int, dict[str, Any]], key: str) -> float:
    return mean_interval([float(row[key]) for row in own.values()])[0]


def _accuracy(values: Sequence[float]) -> str:
    mean, interval = mean_interval(values)
    spread = "" if interval is None else f" ± {100 * (interval[1] - mean):.1f}"
    return f"{100 * mean:.1f}{spread}"


def _differences(seeds: Mapping[str, Seeds], baseline: Seeds, key: str) -> dict[str, str]:
    """By label, the mean difference from the baseline, and p-values with Holm's correction."""
    found = {}
    for label, own in seeds.items():
        shared = sorted(own.keys() & baseline.keys()) if own is not baseline else []
        found[label] = paired_difference(
            [own[seed][key] for seed in shared], [baseline[seed][key] for seed in shared]
        )
    corrected = holm([difference["p_value"] for difference in found.values()])
    return {
        label: _paired_text(difference) + ("" if p is None else f", Holm's {p_text(p)}")
        for (label, difference), p in zip(found.items(), corrected, strict=True)
    }


def _paired(first: Sequence[float], second: Sequence[float]) -> str:
    """The mean difference of pairs in points, its interval and p-value."""
    return _paired_text(paired_difference(first, second))


def _paired_text(found: Mapping[str, Any]) -> str:
    if found["ci95"] is None:
        return "" if found["difference"] is None else points_text(found["difference"])
    low, high = (points_text(end) for end in found["ci95"])
    return f"{points_text(found['difference'])} ({low} to {high}), {p_text(found['p_value'])}"


def _ordered(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def page(paths: Iterable[Path]) -> str:
    """All tables of the result files `paths`, under a heading each."""
    parts = [HEADING]
    for path in paths:
        parts += [f"## {path.stem}", *tables(read_json(path))]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    paths = [Path(name) for name in sys.argv[1:]] or sorted(RESULTS.glob("*.json"))
    if not paths:
        raise SystemExit(f"no results in {RESULTS}: run an experiment first")
    print(page(paths), end="")


if __name__ == "__main__":
    main()
