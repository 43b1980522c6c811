"""Writes one report of runs from several places: reads, labels, summarises and renders them."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from advprop.comparisons.labels import joined, label
from advprop.comparisons.sources import FoundRun, Source, comparison_source, read_source
from advprop.files.atomic import write_atomically
from advprop.report.page.render import render_report
from advprop.results.summary import summarise

REPORT = "report.html"
_OURS = b"advprop report</title>"


def report(places: str | Path | Sequence[str | Path], out: str | Path | None = None) -> Path:
    """Write one report of the runs, comparisons and evaluations in `places`; return its path.

    Without `out`, the report is `report.html` in the reported folder, or in the working directory
    for several places or a file. Runs without tests are tested first. Raises ValueError for a place
    that holds none of these, or an `out` that exists and is not a report.
    """
    paths = [Path(p) for p in ([places] if isinstance(places, str | Path) else places)]
    if not paths:
        raise ValueError("nothing to report: name folders of runs or comparisons")
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise ValueError(f"{', '.join(missing)}: no such file or folder")
    folder = paths[0] if len(paths) == 1 and paths[0].is_dir() else Path()
    target = folder / REPORT if out is None else Path(out)
    _check_target(target)
    sources = [read_source(path) for path in paths]
    command = shlex.join(["advprop", "report", *map(str, paths)])
    command += "" if out is None else f" --out {shlex.quote(str(out))}"
    return _write(target, sources, command)


def write_comparison_report(folder: Path, results: dict[str, Any]) -> Path:
    """Write `report.html` of a comparison with these results; raises OSError on failure."""
    return _write(folder / REPORT, [comparison_source(folder, results)], "")


def _check_target(path: Path) -> None:
    if path.is_dir():
        raise ValueError(f"{path}: a folder; give --out the name of a file")
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent}: no such folder; make it, or give another --out")
    if path.is_file():
        with path.open("rb") as file:
            if _OURS not in file.read(4096):
                raise ValueError(f"{path}: exists, and is not a report; give another --out")


def _write(target: Path, sources: Sequence[Source], command: str) -> Path:
    results, details = gather(sources, command)
    page = render_report(results, details).encode(errors="backslashreplace")
    write_atomically(target, lambda file: file.write(page))
    return target


def gather(sources: Sequence[Source], command: str = "") -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the two arguments of `render_report` for all sources together."""
    runs = joined(sources)
    notes = label(runs, sources)
    rows = [run.row for run in runs]
    recipes = list(dict.fromkeys(source.recipe for source in sources))
    commands = dict.fromkeys(line for source in sources for line in source.commands)
    results = {
        "recipe": ", ".join(recipes),
        "versions": _versions(sources),
        "runs": rows,
        "summary": summarise(rows),
    }
    details = {
        "command": "\n".join([*commands, *([command] if command else [])]),
        "configs": [_labelled(run, {"config": run.settings}) for run in runs if run.settings],
        "curves": [_labelled(run, run.curve) for run in runs if run.curve],
        "records": [_labelled(run, run.record) for run in runs if run.record],
        "tests": [_labelled(run, run.test) for run in runs if run.test],
        "trials": [trial for source in sources for trial in source.trials],
        "notes": [*notes, *(note for source in sources for note in source.notes)],
    }
    return results, details


def _labelled(run: FoundRun, part: dict[str, Any]) -> dict[str, Any]:
    return {**part, "method": run.row["method"], "seed": run.row["seed"]}


def _versions(sources: Sequence[Source]) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for source in sources:
        for name, version in source.versions.items():
            found.setdefault(name, {})[version] = None
    return {name: " and ".join(versions) for name, versions in found.items()}
