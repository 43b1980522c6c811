"""Labels runs from several places so that no two settings share a label.

Runs of the same recipe, images, model and number of epochs form a group, within which methods are
compared with the baselines. Seeds are averaged only if nothing else differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from advprop.comparisons.sources import FoundRun, Source
from advprop.files.parsing import leaves
from advprop.results.summary import EQUAL_COST, is_baseline, kind_of
from advprop.suites.recording import accuracies

_SHOWN = 5  # settings that a note lists


def joined(sources: Sequence[Source]) -> list[FoundRun]:
    """Return each run once: what several sources hold about the same weights is merged."""
    runs: dict[tuple[object, ...], FoundRun] = {}
    for run in (run for source in sources for run in source.runs):
        known = next((k for k in runs if _same(runs[k], run)), None)
        if known is None:
            runs[(*run.identity, run.row["method"], run.source)] = run
        else:
            runs[known] = _merged(runs[known], run)
    return list(runs.values())


def label(runs: Sequence[FoundRun], sources: Sequence[Source]) -> list[str]:
    """Set the label and group of each run's row; return notes about differences between runs."""
    notes = _set_groups(runs)
    places = short_names([source.path for source in sources])
    _split_baselines(runs, places)
    _split_rest(runs)
    return [*notes, *_differences(runs)]


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """Return the shortest ending of each path, in whole names, that no other path shares."""
    listed = list(dict.fromkeys(paths))
    parts = {path: path.resolve().parts for path in listed}
    names = {}
    for path in listed:
        length = 1
        while length < len(parts[path]) and any(
            parts[other][-length:] == parts[path][-length:] for other in listed if other != path
        ):
            length += 1
        names[path] = "/".join(parts[path][-length:])
    return names


def _same(one: FoundRun, other: FoundRun) -> bool:
    """Return whether both are the same weights under one label.

    The label of a run found outside its comparison is not its own, so it fits any label inside.
    """
    if one.identity != other.identity:
        return False
    return one.row["method"] == other.row["method"] or one.of_comparison != other.of_comparison


def _merged(first: FoundRun, second: FoundRun) -> FoundRun:
    """Return two finds of a run as one; the result of a suite in both is that on more images."""
    if second.of_comparison and not first.of_comparison:
        first, second = second, first
    suites = {**(first.test.get("suites") or {})}
    for name, suite in (second.test.get("suites") or {}).items():
        if name not in suites or suite.get("num_images", 0) >= suites[name].get("num_images", 0):
            suites[name] = suite
            first.row |= accuracies({name: suite})
    flags = [*(first.test.get("red_flags") or ()), *(second.test.get("red_flags") or ())]
    unique = [flag for at, flag in enumerate(flags) if flag not in flags[:at]]
    first.test = {**first.test, "suites": suites, "red_flags": unique}
    first.record = first.record or second.record
    return first


def _set_groups(runs: Sequence[FoundRun]) -> list[str]:
    """Label each run with its group if there are several; return a note about them."""
    groups: dict[str, list[FoundRun]] = {}
    of_comparison: dict[Path, str] = {}
    for run in runs:
        key = _group_key(run)
        if run.of_comparison and (run.settings is None or kind_of(run.row) == EQUAL_COST):
            key = of_comparison.get(run.source, key)  # vanilla at equal cost has other epochs
        if run.of_comparison and kind_of(run.row) != EQUAL_COST:
            key = of_comparison.setdefault(run.source, key)
        groups.setdefault(key, []).append(run)
    if len(groups) < 2:
        return []
    names = _names(list(groups.values()))
    for name, own in zip(names, groups.values(), strict=True):
        for run in own:
            _relabel(run, name, group=name)
    tested = sorted({str(run.row["tested_on"]) for run in runs if run.row.get("tested_on")})
    note = (
        f"The runs form {len(groups)} groups that differ in recipe, images, model or number of "
        f"epochs: {'; '.join(names)}. Runs are averaged and compared only within a group."
    )
    if len(tested) > 1:
        note += (
            f" The groups were tested on different images ({', '.join(tested)}), so accuracies of "
            "different groups cannot be compared."
        )
    return [note]


def _group_key(run: FoundRun) -> str:
    """Return a text that is equal for runs that may be compared with each other."""
    if run.settings is None:
        return repr((run.recipe, run.row.get("tested_on")))
    training = run.settings.get("training") or {}
    parts = (run.settings.get("data"), run.settings.get("model"), training.get("num_epochs"))
    return repr((run.recipe, parts))


def _names(groups: Sequence[Sequence[FoundRun]]) -> list[str]:
    """Return a name for each group: the first of recipe, images and folder that is unique."""
    recipes = [own[0].recipe for own in groups]
    images = [str(own[0].row.get("tested_on") or "untested") for own in groups]
    folders = short_names(own[0].source for own in groups)
    places = [folders[own[0].source] for own in groups]
    both = [f"{recipe}, {image}" for recipe, image in zip(recipes, images, strict=True)]
    for names in (recipes, images, both, places):
        if len(set(names)) == len(names):
            return list(names)
    return [f"{place}, {at}" for at, place in enumerate(places, start=1)]


def _relabel(run: FoundRun, name: str, *, group: str | None) -> None:
    run.row["kind"] = kind_of(run.row)
    run.row["method"] = f"{run.row['method']}, {name}"
    if group is not None:
        own = run.row.get("group")
        run.row["group"] = f"{own}, {group}" if own else group


def _colliding(runs: Sequence[FoundRun]) -> list[FoundRun]:
    """Return the runs whose label has repeated seeds or several settings."""
    by_label: dict[str, list[FoundRun]] = {}
    for run in runs:
        by_label.setdefault(run.row["method"], []).append(run)
    return [
        run
        for own in by_label.values()
        if max(Counter(run.row["seed"] for run in own).values()) > 1
        or len({run.same_settings for run in own}) > 1
        for run in own
    ]


def _split_baselines(runs: Sequence[FoundRun], places: dict[Path, str]) -> None:
    """Relabel all runs of comparisons whose baselines collide, so that each keeps its own."""
    apart = {run.source for run in _colliding(runs) if run.of_comparison and is_baseline(run.row)}
    if len(apart) < 2:
        return
    for run in runs:
        if run.source in apart:
            _relabel(run, places[run.source], group=places[run.source])


def _split_rest(runs: Sequence[FoundRun]) -> None:
    for name in ("source", "place"):
        colliding = _colliding(runs)
        names = short_names(getattr(run, name) for run in colliding)
        if name == "source" and len(names) < 2:
            continue
        for run in colliding:
            _relabel(run, names[getattr(run, name)], group=None)


def _differences(runs: Sequence[FoundRun]) -> list[str]:
    """Return a note for each group from several sources that differs in more than the method."""
    groups: dict[str, list[FoundRun]] = {}
    for run in runs:
        if run.settings is not None and kind_of(run.row) != EQUAL_COST:
            groups.setdefault(str(run.row.get("group") or ""), []).append(run)
    notes = []
    for name, own in groups.items():
        if len({run.source for run in own}) < 2:
            continue
        settings = [dict(leaves(run.settings)) for run in own]
        paths = {path for one in settings for path in one if not path.startswith("method.")}
        differing = sorted(
            path
            for path in paths - {"seed", "method"}
            if len({repr(one.get(path)) for one in settings}) > 1
        )
        if differing:
            more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
            where = f"In {name}, the runs" if name else "The runs"
            listed = ", ".join(differing[:_SHOWN])
            notes.append(f"{where} differ in other settings besides the method: {listed}{more}.")
    return notes
