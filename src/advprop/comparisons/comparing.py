"""Trains and tests every method and seed of a recipe for a comparison."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from advprop.comparisons.gathering import write_comparison_report
from advprop.comparisons.jobs import outcomes, usable_threads
from advprop.comparisons.plan import DEFAULT_METHODS, Equal, Job, plan_jobs
from advprop.comparisons.sources import RESULTS
from advprop.comparisons.step_costs import STEP_COSTS, read_costs, step_costs
from advprop.config.overrides import differences, read_config
from advprop.config.run import RunConfig
from advprop.files.json_files import write_json
from advprop.results.summary import summarise
from advprop.runs.facts import check_same_data, load_data
from advprop.runs.folder import versions
from advprop.runs.trainer import check_plain_model
from advprop.suites.recording import is_run


def compare(
    config: RunConfig,
    out: str | Path,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    num_seeds: int = 3,
    jobs: int = 1,
    overrides: Sequence[str] = (),
    equal: Equal = "passes",
    part: tuple[int, int] | None = None,
    report_finished: Callable[[dict[str, Any]], None] = lambda row: None,
    command: str = "",
) -> dict[str, Any]:
    """Train and test `methods` and `vanilla_equal_cost` with seeds 0 to `num_seeds` - 1.

    `vanilla_equal_cost` is vanilla for as many epochs as give it the passes of the most expensive
    method. With `equal` "seconds", steps are timed on this machine first (stored in
    `step_costs.json`), and every method trains for the time of the most expensive one. Each of
    `jobs` processes has an equal, recorded share of the CPU's threads. Runs that `out` already
    holds are not trained again. Writes `results.json` (after each run) and `report.html`, and
    returns the contents of the former. `overrides` are those of `--set`; `method.*` apply to the
    methods that have the setting. `part` (2, 8) runs the second of eight parts, for eight machines
    that share `out`, and writes neither file; the same call without it gathers all parts.

    A run that cannot be trained (a loss that is not finite, settings that its method does not
    support, too little memory) is listed in `failed` of the results, and the others go on.

    Raises ValueError for unknown methods, settings that no method has, data or a model that no run
    can use, or a folder with other runs; KeyboardInterrupt, after writing the results so far.
    """
    folder = Path(out)
    for name, number in (("seeds", num_seeds), ("jobs", jobs)):
        if number < 1:
            raise ValueError(f"{number} {name}: give at least 1")
    _check_place(folder)
    measure = None
    if equal == "seconds":
        path, threads = folder / STEP_COSTS, _threads(jobs)
        measure = partial(step_costs, path=path, threads=threads)
    return run_jobs(
        plan_jobs(config, folder, methods, num_seeds, overrides, measure=measure),
        folder,
        recipe=config.recipe,
        jobs=jobs,
        part=part,
        report_finished=report_finished,
        command=command,
    )


def run_jobs(
    planned: Sequence[Job],
    folder: Path,
    *,
    recipe: str,
    jobs: int = 1,
    part: tuple[int, int] | None = None,
    report_finished: Callable[[dict[str, Any]], None] = lambda row: None,
    command: str = "",
) -> dict[str, Any]:
    """Train and test the planned runs as `compare` does, and with the same errors.

    A job's folder may lie outside `folder`, so that several comparisons can share a run.
    """
    if jobs < 1:
        raise ValueError(f"{jobs} jobs: give at least 1")
    if part is not None and not 1 <= part[0] <= part[1]:
        raise ValueError(f"part {part[0]}/{part[1]}: give K/N with K from 1 to N, as in 2/8")
    _check_folder(folder, planned)
    first = planned[0].config  # an unusable folder or model raises here, not in every job
    data, facts = load_data(first)
    kept = [job.folder for job in planned if is_run(job.folder)]
    for change in {c for run in kept for c in check_same_data(run, facts, data)}:
        warnings.warn(f"{folder}: of some runs, {change}; they are not tested anew", stacklevel=2)
    check_plain_model(first, data)
    folder.mkdir(parents=True, exist_ok=True)
    comparison = _Comparison(folder, recipe, planned, jobs, command, writes=part is None)
    own = planned if part is None else planned[part[0] - 1 :: part[1]]
    try:
        for job, outcome in outcomes(own, jobs, comparison.threads):
            row = comparison.add(job, outcome)
            if row is not None:
                report_finished(row)
    finally:
        comparison.write_report()
    comparison.check_any()
    return comparison.results()


class _Comparison:
    """The rows so far, written to disk after each run."""

    def __init__(
        self,
        folder: Path,
        recipe: str,
        planned: Sequence[Job],
        jobs: int,
        command: str,
        *,
        writes: bool,
    ) -> None:
        self.folder, self.recipe, self.planned = folder, recipe, planned
        self.jobs, self.threads, self.command = jobs, _threads(jobs), command
        self.writes = writes
        self.rows: dict[tuple[str, int], dict[str, Any]] = {}
        self.failed: list[dict[str, Any]] = []
        self.errors: list[Exception] = []

    def add(self, job: Job, outcome: dict[str, Any] | Exception) -> dict[str, Any] | None:
        """Add the outcome of a job; returns its row, or None if it failed."""
        key = job.method, job.config.seed
        if isinstance(outcome, Exception):
            self.failed.append({"method": key[0], "seed": key[1], "error": str(outcome)})
            self.errors.append(outcome)
            row = None
        else:
            row = {
                **outcome,
                "method": job.method,
                "folder": os.path.relpath(job.folder, self.folder),
            }
            self.rows[key] = row
        if self.writes:
            write_json(self.folder / RESULTS, self.results())
        return row

    def results(self) -> dict[str, Any]:
        """Return the contents of `results.json`."""
        order = [(job.method, job.config.seed) for job in self.planned]
        runs = [self.rows[key] for key in order if key in self.rows]
        return {
            "recipe": self.recipe,
            "command": self.command,
            "versions": versions(),
            "jobs": self.jobs,
            "threads": self.threads,
            "planned_runs": len(self.planned),
            "runs": runs,
            "failed": self.failed,
            "step_costs": read_costs(self.folder / STEP_COSTS),
            "summary": summarise(runs),
        }

    def check_any(self) -> None:
        """Raise the first run's ValueError if no run could be trained."""
        refused = all(isinstance(error, ValueError) for error in self.errors)
        if self.errors and refused and not self.rows:
            raise self.errors[0]

    def write_report(self) -> None:
        """Write `report.html` if there are any rows."""
        if self.rows and self.writes:
            write_comparison_report(self.folder, self.results())


def _threads(jobs: int) -> int:
    """Return each run's share of the CPU's threads."""
    return max(1, usable_threads() // jobs)


def _check_place(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file, not a folder; give another --out")
    known = any((folder / name).exists() for name in ("runs", RESULTS, STEP_COSTS))
    if folder.is_dir() and any(folder.iterdir()) and not known:
        raise ValueError(f"{folder}: not empty, and not a comparison; give another --out")


def _check_folder(folder: Path, planned: Sequence[Job]) -> None:
    _check_place(folder)
    for job in planned:
        if is_run(job.folder):
            changed = differences(read_config(job.folder / "config.json"), job.config)
            if changed:
                raise ValueError(
                    f"{job.folder}: a run with other settings; give another --out\n  "
                    + "\n  ".join(changed.values())
                )
