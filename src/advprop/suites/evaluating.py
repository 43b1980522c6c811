"""`evaluate`: test a trained model on suites, and say exactly what was tested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from advprop.auxiliary.norm import CLEAN
from advprop.config.overrides import apply_evaluation_overrides
from advprop.run_folder import Weights, versions
from advprop.suites.registry import DEFAULT_SUITES, SUITES
from advprop.suites.subjects import Subject, known_branch, load_subject
from advprop.suites.trial import Trial


def evaluate(
    run_or_export: str | Path,
    *,
    suites: Sequence[str] = DEFAULT_SUITES,
    data: Mapping[str, str | Path] | None = None,
    eval_branch: str = CLEAN,
    attack_branch: str | None = None,
    weights: Weights | None = None,
    limit: int | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Test a run's or an export's model on its test images, or on the folders in `data`.

    `data` gives a suite another folder, a folder a class in it. Clean images and attacked ones go
    through `eval_branch`; the attack through `attack_branch` (by default the same). `limit` takes
    so many images at most, in proportion to the classes. `settings` change what the run was given
    for its evaluation ("PATH=VALUE", as "evaluation.batch_size=100"). Returns plain data: `{run,
    branch, weights, versions, suites: {clean: {...}, ...}, red_flags}` (docs/results.md). Raises
    ValueError or OSError for anything that is not there, ImportError for a missing extra.
    """
    folders = {suite: Path(folder) for suite, folder in (data or {}).items()}
    _check_suites(suites, folders)
    subject = load_subject(Path(run_or_export), weights=weights)
    changed = apply_evaluation_overrides(subject.evaluation, settings)
    subject = replace(subject, evaluation=changed)
    trials = _trials(subject, suites, folders, eval_branch, attack_branch or eval_branch, limit)
    results = {name: SUITES[name].run(trial) for name, trial in trials.items()}
    return {
        "run": subject.name,
        "branch": eval_branch,
        "weights": subject.weights,
        "versions": versions(),
        "suites": results,
        "red_flags": [],
    }


def _trials(
    subject: Subject,
    suites: Sequence[str],
    folders: Mapping[str, Path],
    eval_branch: str,
    attack_branch: str,
    limit: int | None,
) -> dict[str, Trial]:
    """A trial for each suite; whatever is wrong with its images shows before any is tested."""
    subject.model.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    own = Trial(
        subject=subject,
        eval_branch=known_branch(subject.model, eval_branch),
        attack_branch=known_branch(subject.model, attack_branch),
        limit=limit,
    )
    trials = {
        name: replace(own, folder=folders[name]) if name in folders else own for name in suites
    }
    for name, trial in trials.items():
        if not SUITES[name].needs_folder:
            SUITES[name].check(trial)
    return trials


def _check_suites(suites: Sequence[str], folders: Mapping[str, Path]) -> None:
    if not suites:
        raise ValueError(f"no suite named: choose from {', '.join(SUITES)}")
    for suite in (*suites, *folders):
        if suite not in SUITES:
            raise ValueError(f'suite "{suite}" unknown: choose from {", ".join(SUITES)}')
    for suite in folders:
        if suite not in suites:
            raise ValueError(f'data for suite "{suite}", which is not among {", ".join(suites)}')
    for suite in suites:
        if SUITES[suite].needs_folder and suite not in folders:
            raise ValueError(f'suite "{suite}" needs its images: --data {suite}=DIR')
