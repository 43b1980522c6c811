"""Trains and tests every method and seed of a recipe for a comparison."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from advprop.comparisons.gathering import write_comparison_report
from advprop.comparisons.jobs import check_jobs, check_place, outcomes, threads_of_each
from advprop.comparisons.plan import DEFAULT_METHODS, Equal, Job, plan_jobs
from advprop.comparisons.sources import RESULTS
from advprop.comparisons.step_costs import STEP_COSTS, read_costs, step_costs
from advprop.comparisons.trials import Trials
from advprop.config.run import RunConfig
from advprop.files.json_files import write_json
from advprop.results.summary import summarise
from advprop.runs.folder import versions


def compare(
    config: RunConfig,
    out: str | Path,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    num_seeds: int = 3,
    jobs: int = 1,
    overrides: Sequence[str] = (),
    equal: Equal = "passes",
    vary: Sequence[str] = (),
    part: tuple[int, int] | None = None,
    report_finished: Callable[[dict[str, Any]], None] = lambda row: None,
    command: str = "",
) -> dict[str, Any]:
    """Train and test `methods` and `vanilla_equal_cost` with seeds 0 to `num_seeds` - 1.

    `vanilla_equal_cost` is vanilla with as many epochs as give it the passes of the most expensive
    method. With `equal` "seconds", steps are timed on this machine first (stored in
    `step_costs.json`), and every method trains for the time of the most expensive one. `jobs` runs
    are trained at a time, each in a process with an equal share of the CPU's threads. Runs that
    `out` already holds are not trained again. `overrides` are those of `--set`; `method.*` apply to
    the methods that have the setting. `vary` lists "PATH=A,B": a method that has the setting is
    trained once with each value, and its seeds with the value of the highest validation accuracy.
    `part` (2, 8) runs the second of eight parts, for eight machines that share `out`. A run that
    cannot be trained (a loss that is not finite, unsupported settings, too little memory) is listed
    in `failed`, and the others continue. Writes `results.json`, after each run, and `report.html`,
    and returns the contents of the former. With `part` it writes neither; the same call without
    `part` gathers all parts.

    Raises ValueError for unknown methods, settings that no method has, data or a model that no run
    can use, or other runs in the folder; KeyboardInterrupt (SIGTERM: SystemExit) after the results.
    """
    folder = Path(out)
    _check_numbers(jobs, part, num_seeds)
    check_place(folder)
    trials = Trials(folder, jobs=jobs, part=part, report_finished=report_finished)
    costs = folder / STEP_COSTS if equal == "seconds" else None
    measure = partial(step_costs, path=costs, threads=threads_of_each(jobs)) if costs else None
    planned = plan_jobs(config, folder, methods, num_seeds, overrides, vary, trials.choose, measure)
    return run_jobs(
        planned,
        folder,
        recipe=config.recipe,
        jobs=jobs,
        part=part,
        report_finished=report_finished,
        command=command,
        step_costs=read_costs(costs) if costs else {},
        trials=trials.rows,
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
    step_costs: Mapping[str, float] | None = None,
    trials: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Train and test the planned runs as `compare` does, and with the same errors.

    A job's folder may lie outside `folder`, so that several comparisons can share a run.
    `step_costs` and `trials` are entries of the results that were computed before these runs.
    """
    _check_numbers(jobs, part)
    check_jobs(folder, planned)
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "recipe": recipe,
        "command": command,
        "versions": versions(),
        "jobs": jobs,
        "threads": threads_of_each(jobs),
        "planned_runs": len(planned),
        "step_costs": step_costs or {},
        "trials": trials,
    }
    comparison = _Comparison(folder, planned, about, writes=part is None)
    own = planned if part is None else planned[part[0] - 1 :: part[1]]
    try:
        for job, outcome in outcomes(own, jobs):
            row = comparison.add(job, outcome)
            if row is not None:
                report_finished(row)
    finally:
        comparison.write_report()
    comparison.check_any()
    return comparison.results()


class _Comparison:
    """The results so far; `writes` tells whether `results.json` is written after each run."""

    def __init__(
        self, folder: Path, planned: Sequence[Job], about: Mapping[str, Any], *, writes: bool
    ) -> None:
        self.folder, self.planned, self.about, self.writes = folder, planned, about, writes
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
        return {**self.about, "runs": runs, "failed": self.failed, "summary": summarise(runs)}

    def check_any(self) -> None:
        """Raise the first error if all runs failed, each with a ValueError."""
        refused = all(isinstance(error, ValueError) for error in self.errors)
        if self.errors and refused and not self.rows:
            raise self.errors[0]

    def write_report(self) -> None:
        """Write `report.html` if any run has finished, unless this is a part of a comparison."""
        if self.rows and self.writes:
            write_comparison_report(self.folder, self.results())


def _check_numbers(jobs: int, part: tuple[int, int] | None, num_seeds: int = 1) -> None:
    for name, number in (("seeds", num_seeds), ("jobs", jobs)):
        if number < 1:
            raise ValueError(f"{number} {name}: give at least 1")
    if part is not None and not 1 <= part[0] <= part[1]:
        raise ValueError(f"part {part[0]}/{part[1]}: give K/N with K from 1 to N, as in 2/8")
