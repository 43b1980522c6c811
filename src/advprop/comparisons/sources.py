"""Reads the folder of a run or comparison, or a file of `advprop evaluate --json`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from advprop.config.overrides import validated, with_identities
from advprop.files.json_files import read_json
from advprop.files.parsing import Part
from advprop.report.findings import Evaluation
from advprop.results.rows import Results, Trial
from advprop.runs.facts import saved_facts
from advprop.runs.folder import CONFIG, read_result
from advprop.suites.recording import accuracies, complete_run, is_run, run_details

RESULTS = "results.json"
_CLEAN = "clean"
Json = Mapping[str, Any]


@dataclass(kw_only=True)
class FoundRun:
    """A run, as found in a source: its row of results, its folder (`place`), records and tests.

    `identity` is equal for two finds of the same weights of one run; `settings` is the run's
    configuration, None if only results are left. `source` is the path that the user named.
    """

    row: dict[str, Any]
    place: Path
    source: Path
    recipe: str
    identity: tuple[Any, ...]
    settings: Json | None = None
    of_comparison: bool = False
    curve: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)

    @property
    def same_settings(self) -> str:
        """Return a text that is equal for runs that differ only in the seed."""
        if self.settings is None:
            parts = [self.row.get(key) for key in ("epochs", "passes_per_image")]
            return repr((self.recipe, *parts))
        return repr({key: value for key, value in self.settings.items() if key != "seed"})


@dataclass
class Source:
    """The contents of one path that the user named: runs, commands, versions, notes and trials."""

    path: Path
    recipe: str
    runs: list[FoundRun]
    commands: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    trials: list[Json] = field(default_factory=list)


class Settings(Part):
    """The parts of a run's configuration that labels depend on."""

    training: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any] = Field(default_factory=dict)


def read_source(path: Path) -> Source:
    """Return the runs in `path`, after testing a run that has no tests yet.

    Raises ValueError or OSError unless `path` is the folder of a finished run or a comparison, or a
    file of an evaluation.
    """
    if path.is_file():
        return _evaluation(path)
    return _run(path) if is_run(path) else comparison_source(path, read_results(path))


def read_results(folder: Path) -> dict[str, Any]:
    """Return the results of the comparison in `folder`; raises ValueError if missing or damaged."""
    path = folder / RESULTS
    if not path.is_file():
        raise ValueError(
            f"{folder}: neither a run nor a comparison here ({RESULTS} is missing; the command of "
            "a comparison in parts writes it without --part)"
        )
    return read_json(path, Results, remedy="compare again, runs are kept")


def comparison_source(folder: Path, results: dict[str, Any]) -> Source:
    """Return the comparison with these `results`; their folders are relative to `folder`."""
    missing = results["planned_runs"] - len(results["runs"])
    notes = [f"{missing} of {results['planned_runs']} runs are missing."] if missing else []
    if costs := results.get("step_costs"):
        listed = ", ".join(f"{name} {cost:.2f}" for name, cost in costs.items())
        notes += [
            "All methods trained for the time of the most expensive one. It was computed from "
            f"training steps that were timed before (as multiples of a vanilla step: {listed})."
        ]
    notes += [f"{f['method']}, seed {f['seed']}: {f['error']}" for f in results["failed"]]
    trials = [Trial.model_validate(trial) for trial in results.get("trials") or ()]
    notes += [f"{t.method} with {t.told}: {t.error}" for t in trials if t.error]
    recipe = str(results.get("recipe") or "unnamed")
    return Source(
        path=folder,
        recipe=recipe,
        runs=[
            _of_folder(folder / row["folder"], dict(row), folder, recipe, of_comparison=True)
            for row in results["runs"]
        ],
        commands=results["command"].splitlines(),
        versions=dict(results.get("versions") or {}),
        notes=notes,
        trials=list(results.get("trials") or ()),
    )


def _run(folder: Path) -> Source:
    row = {**complete_run(folder), "folder": str(folder)}
    run = _of_folder(folder, row, folder, str(row["recipe"]))
    command = shlex.join(["advprop", "train", str(folder / CONFIG)])
    versions = dict(row.pop("versions"))
    return Source(folder, run.recipe, [run], commands=[command], versions=versions)


def _of_folder(
    folder: Path, row: dict[str, Any], source: Path, recipe: str, *, of_comparison: bool = False
) -> FoundRun:
    details = run_details(folder)
    test = details["test"]
    row |= accuracies(test.get("suites") or {})
    return FoundRun(
        row=row,
        place=folder,
        source=source,
        recipe=recipe,
        identity=(folder.resolve(), test.get("branch", _CLEAN), test.get("weights")),
        settings=_settings(folder),
        of_comparison=of_comparison,
        **details,
    )


def _settings(folder: Path) -> dict[str, Any] | None:
    """Return a run's configuration with paths replaced by digests, or None without `config.json`.

    It is converted to this version's settings if possible; otherwise it stays as written.
    """
    if not is_run(folder):
        return None
    settings = read_json(folder / CONFIG, Settings)
    with suppress(ValueError):  # another version wrote settings that this one does not know
        settings = validated(settings).model_dump(mode="json")
    return with_identities(settings, saved_facts(folder))


def _subject(path: Path, test: dict[str, Any]) -> Path:
    """Return the evaluated run's folder: as recorded, or relative to the evaluation's file."""
    given = Path(str(test["run"]))
    beside = [path.parent / given, *([path.parent] if path.parent.name == given.name else [])]
    found = (Path(str(test.get("folder", given))), given, *beside)
    return next((folder for folder in found if is_run(folder)), given)


def _evaluation(path: Path) -> Source:
    remedy = "not what advprop evaluate --json writes; evaluate again"
    test = read_json(path, Evaluation, remedy=remedy)
    found, subject = accuracies(test["suites"]), _subject(path, test)
    images = sorted({suite["images"] for suite in test["suites"].values()})
    branch, weights = str(test.get("branch") or _CLEAN), test.get("weights")
    row: dict[str, Any] = {"method": subject.name or str(subject), "seed": 0}
    curve: dict[str, Any] = {}
    settings, recipe = None, "evaluated"
    if is_run(subject) and (result := read_result(subject)):
        row, recipe = dict(result), str(result["recipe"])
        row.pop("versions")
        settings, curve = _settings(subject), run_details(subject)["curve"]
    if branch != _CLEAN:
        row = {**row, "method": f"{row['method']}, branch {branch}"}
    row |= {**found, "tested_on": ", ".join(images), "folder": str(subject)}
    run = FoundRun(
        row=row,
        place=subject,
        source=path,
        recipe=recipe,
        identity=(subject.resolve(), branch, weights),
        settings=settings,
        curve=curve,
        test=test,
    )
    command = str(test.get("command") or _command(path, test, branch))
    versions = dict(test.get("versions") or {})
    return Source(path, recipe, [run], commands=[command], versions=versions)


def _command(path: Path, test: dict[str, Any], branch: str) -> str:
    words = ["advprop", "evaluate", str(test["run"]), "--suite", ",".join(test["suites"])]
    words += [] if branch == _CLEAN else ["--eval-branch", branch]
    return shlex.join([*words, "--json", str(path)])
