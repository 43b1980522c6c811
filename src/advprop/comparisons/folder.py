"""Checks a comparison's folder and the runs in it before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from advprop.comparisons.plan import Job
from advprop.comparisons.sources import RESULTS
from advprop.comparisons.step_costs import STEP_COSTS
from advprop.config.overrides import differences, read_config
from advprop.runs.facts import check_same_data, load_data
from advprop.runs.trainer import check_plain_model
from advprop.suites.recording import is_run

RUNS, TRIALS = "runs", "trials"


def check_place(folder: Path) -> None:
    """Raises ValueError if `folder` holds anything but a comparison."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: a file, not a folder; give another --out")
    known = any((folder / name).exists() for name in (RUNS, TRIALS, RESULTS, STEP_COSTS))
    if folder.is_dir() and any(folder.iterdir()) and not known:
        raise ValueError(f"{folder}: not empty, and not a comparison; give another --out")


def check_jobs(folder: Path, planned: Sequence[Job]) -> None:
    """Check what would stop every run: the folder, runs of other settings, the data, the model.

    Raises ValueError for any of these; warns if the data of finished runs have changed since.
    """
    check_place(folder)
    kept = [job for job in planned if is_run(job.folder)]
    for job in kept:
        changed = differences(read_config(job.folder / "config.json"), job.config)
        if changed:
            raise ValueError(
                f"{job.folder}: a run with other settings; give another --out\n  "
                + "\n  ".join(changed.values())
            )
    first = planned[0].config
    data, facts = load_data(first)
    for change in {c for job in kept for c in check_same_data(job.folder, facts, data)}:
        warnings.warn(f"{folder}: of some runs, {change}; they are not tested anew", stacklevel=3)
    check_plain_model(first, data)
