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
from advprop.suites.subjects import Subject, known_branch
from advprop.suites.timm_subjects import find_subject, names_timm_model
from advprop.suites.trial import Trial, open_class_folder


def evaluate(
    run_or_export: str | Path,
    *,
    suites: Sequence[str] | None = None,
    data: Mapping[str, str | Path] | None = None,
    eval_branch: str = CLEAN,
    attack_branch: str | None = None,
    weights: Weights | None = None,
    checkpoint: str | Path | None = None,
    limit: int | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Test a run's or an export's model on its test images, or on the folders in `data`.

    A name of timm's in the place of the folder tests that model, with timm's weights or those of
    the file `checkpoint`. `suites` default to clean, noise and adversarial, as far as there are
    images, and those of `data`, which gives a suite another folder: a folder a class in it, or laid
    out as the suite's set was published. Clean images and attacked ones go through `eval_branch`;
    the attack through `attack_branch` (by default the same). `limit` takes so many images at most,
    in proportion to the classes. `settings` change what the run was given for its evaluation
    ("PATH=VALUE", as "evaluation.batch_size=100"). Returns plain data: `{run, branch, weights,
    versions, suites: {clean: {...}, ...}, red_flags}` (docs/results.md). Raises ValueError or
    OSError for anything that is not there, ImportError for a missing extra.
    """
    folders = {suite: Path(folder) for suite, folder in (data or {}).items()}
    suites = _chosen_suites(run_or_export, suites, folders)
    subject = find_subject(run_or_export, weights=weights, checkpoint=checkpoint)
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
    trials = {name: _trial(own, name, folders) for name in suites}
    for name, trial in trials.items():
        SUITES[name].check(trial)
    return trials


def _trial(own: Trial, suite: str, folders: Mapping[str, Path]) -> Trial:
    if suite not in folders:
        return own
    open_folder = SUITES[suite].open_folder or open_class_folder
    return replace(own, folder=folders[suite], open_folder=open_folder)


def _chosen_suites(
    name: str | Path, suites: Sequence[str] | None, folders: Mapping[str, Path]
) -> Sequence[str]:
    has_images = not names_timm_model(name)
    if suites is None:
        suites = list(dict.fromkeys([*(DEFAULT_SUITES if has_images else ()), *folders]))
    if not (suites or has_images):
        raise ValueError(
            f"{name}: a model of timm's comes without images to test on; name some, as in "
            "--data clean=DIR"
        )
    _check_suites(suites, folders, has_images=has_images)
    return suites


def _check_suites(suites: Sequence[str], folders: Mapping[str, Path], *, has_images: bool) -> None:
    if not suites:
        raise ValueError(f"no suite named: choose from {', '.join(SUITES)}")
    for suite in (*suites, *folders):
        if suite not in SUITES:
            raise ValueError(f'suite "{suite}" unknown: choose from {", ".join(SUITES)}')
    for suite in folders:
        if suite not in suites:
            raise ValueError(f'data for suite "{suite}", which is not among {", ".join(suites)}')
    for suite in suites:
        if (SUITES[suite].needs_folder or not has_images) and suite not in folders:
            raise ValueError(f'suite "{suite}" needs its images: --data {suite}=DIR')
