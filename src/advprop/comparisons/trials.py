"""Chooses among varied settings of each method (`--vary`) by accuracy on validation images.

Each combination of settings is trained once, with a seed that no comparison uses, and never tested.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from advprop.comparisons.candidates import Candidate, Candidates, first_candidates
from advprop.comparisons.jobs import TRIALS, check_jobs, outcomes
from advprop.comparisons.plan import Job
from advprop.comparisons.sources import RESULTS, read_results
from advprop.config.overrides import parse_override
from advprop.files.atomic import safe_name
from advprop.runs.folder import is_finished

SEED = 2**31 - 1
_LONGEST = 200  # characters of a folder's name; file systems allow 255 bytes


@dataclass
class Trials:
    """Trains candidates for a comparison in `folder`; `rows` are the `trials` of its results."""

    folder: Path
    _: KW_ONLY
    jobs: int
    part: tuple[int, int] | None
    report_finished: Callable[[dict[str, Any]], None]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def choose(self, candidates: Candidates) -> dict[str, Candidate]:
        """Return each method's candidate with the highest validation accuracy, the first of equals.

        If no candidate of a method can be trained, the one returned has an `error`. Finished trials
        are not trained again. Raises ValueError as `check_jobs` does, or for a part of a comparison
        while trials are missing.
        """
        chosen = first_candidates(candidates)
        trials = {
            method: list(zip(own, self._jobs(method, own), strict=True))
            for method, own in candidates.items()
            if len(own) > 1
        }
        planned = [job for own in trials.values() for _, job in own]
        if not planned:
            return chosen
        check_jobs(self.folder, planned)
        found = self._outcomes(planned)
        for method, own in trials.items():
            whole = [one for one in own if not isinstance(found[one[1].folder], Exception)]
            if whole:
                best = max(whole, key=lambda one: found[one[1].folder]["validation_accuracy"])[0]
            else:
                error = f"none of {len(own)} varied settings can be trained: "
                best = dataclasses.replace(own[0][0], error=error + str(found[own[0][1].folder]))
            chosen[method] = best
            self.rows += [
                self._row(job, candidate, found[job.folder], chosen=candidate is best)
                for candidate, job in own
            ]
        return chosen

    def _jobs(self, method: str, candidates: Sequence[Candidate]) -> list[Job]:
        names = [safe_name(method, *candidate.settings) for candidate in candidates]
        for place, name in enumerate(names):
            if len(name) > _LONGEST or names.count(name) > 1:  # shortened names may be equal
                names[place] = f"{name[:_LONGEST]}-{place}"
        return [
            Job(
                method=method,
                config=candidate.config.with_seed(SEED),
                folder=self.folder / TRIALS / name,
                error=candidate.error,
                tested=False,
            )
            for name, candidate in zip(names, candidates, strict=True)
        ]

    def _outcomes(self, planned: list[Job]) -> dict[Path, Any]:
        """Return the result or the error of each trial, by its folder."""
        found: dict[Path, Any] = {}
        if self.part is not None:
            found = self._failed_before()
            planned = [job for job in planned if job.folder not in found]
            if missing := [job for job in planned if not job.error and not is_finished(job.folder)]:
                raise ValueError(
                    f"part {self.part[0]}/{self.part[1]}: {len(missing)} trials of --vary are not "
                    "finished: run the same command with --seeds 1 and without --part first"
                )
        for job, outcome in outcomes(planned, self.jobs):
            found[job.folder] = outcome
            if not isinstance(outcome, Exception):
                self.report_finished({**outcome, "method": job.method, "folder": str(job.folder)})
        return found

    def _failed_before(self) -> dict[Path, Any]:
        if not (self.folder / RESULTS).is_file():
            return {}
        rows = read_results(self.folder).get("trials") or ()
        return {self.folder / r["folder"]: ValueError(r["error"]) for r in rows if r.get("error")}

    def _row(self, job: Job, candidate: Candidate, outcome: Any, *, chosen: bool) -> dict[str, Any]:
        told: Mapping[str, Any] = (
            {"error": str(outcome)}
            if isinstance(outcome, Exception)
            else {key: outcome[key] for key in ("validation_accuracy", "epochs", "train_seconds")}
        )
        return {
            "method": job.method,
            "settings": dict(parse_override(setting) for setting in candidate.settings),
            "chosen": chosen,
            "folder": os.path.relpath(job.folder, self.folder),
            **told,
        }
