"""Tests a trained model on suites, after checking the images of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from advprop.auxiliary.route import CLEAN
from advprop.config.overrides import apply_evaluation_overrides
from advprop.runs.folder import Weights, versions
from advprop.suites.attacks import check_source
from advprop.suites.red_flags import find_red_flags
from advprop.suites.registry import DEFAULT_SUITES, SUITES
from advprop.suites.subjects import Subject, known_branch, load_subject
from advprop.suites.timm_subjects import find_subject, names_timm_model
from advprop.suites.trial import Trial


def evaluate(
    run_or_export: str | Path,
    *,
    suites: Sequence[str] | None = None,
    data: Mapping[str, str | Path] | None = None,
    eval_branch: str = CLEAN,
    attack_branch: str | None = None,
    all_branches: bool = False,
    source: str | Path | None = None,
    source_branch: str = CLEAN,
    weights: Weights | None = None,
    checkpoint: str | Path | None = None,
    limit: int | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """Test a run's or an export's model on its test images, or on the folders in `data`.

    The name of a timm model instead of a folder tests that model, with timm's weights or those in
    the file `checkpoint`. `suites` default to clean, noise and adversarial, if the model has images
    of its own, and the suites in `data`. `data` maps a suite to a folder with one subfolder per
    class, or with the layout in which the suite's set was published. Images are classified through
    `eval_branch` and attacked through `attack_branch` (by default the same); `all_branches` tests
    every pair of branches too. `source` is the run or export whose model, through `source_branch`,
    the suite transfer attacks. `limit` is the largest number of images, chosen in proportion to the
    classes. `settings` ("PATH=VALUE", as in "evaluation.restarts=5") change the run's evaluation
    settings. Returns plain data: `{run, branch, weights, versions, suites: {clean: {...}, ...},
    checks, red_flags}` (docs/results.md). Raises ValueError or OSError for anything missing or
    invalid, ImportError for a missing extra.
    """
    folders = {suite: Path(folder) for suite, folder in (data or {}).items()}
    suites = _choose_suites(run_or_export, suites, folders)
    _check_attacks(suites, all_branches=all_branches, source=source)
    subject = find_subject(run_or_export, weights=weights, checkpoint=checkpoint)
    _check_labels(suites, multi_label=subject.multi_label)
    changed = apply_evaluation_overrides(subject.evaluation, settings)
    trial = Trial(
        subject=replace(subject, evaluation=changed),
        eval_branch=known_branch(subject.model, eval_branch),
        attack_branch=known_branch(subject.model, attack_branch or eval_branch),
        limit=limit,
        source=None if source is None else _load_source(subject, Path(source), source_branch),
        source_branch=source_branch,
        all_branches=all_branches,
    )
    result = evaluate_trial(trial, suites=suites, folders=folders)
    place = Path(run_or_export)
    return {**result, "folder": str(place.absolute())} if place.is_dir() else result


def evaluate_trial(
    trial: Trial, *, suites: Sequence[str], folders: Mapping[str, Path] | None = None
) -> dict[str, Any]:
    """Test the trial's subject on `suites`; returns and raises as `evaluate`."""
    subject = trial.subject
    trials = _trials(trial, suites, folders or {})
    results = {name: SUITES[name].run(own) for name, own in trials.items()}
    flags, checks = find_red_flags(trials, results)
    return {
        "run": subject.name,
        "branch": trial.eval_branch,
        "weights": subject.weights,
        "versions": versions(),
        "suites": results,
        "checks": checks,
        "red_flags": [flag.model_dump() for flag in flags],
    }


def _trials(own: Trial, suites: Sequence[str], folders: Mapping[str, Path]) -> dict[str, Trial]:
    """Return a trial for each suite, on the device, after checking the images of all suites."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for subject in (own.subject, own.source):
        if subject is not None:
            subject.model.to(device)
    trials = dict.fromkeys(suites, own)
    for name, folder in folders.items():
        trials[name] = replace(own, folder=folder, open_folder=SUITES[name].open_folder)
    for name, trial in trials.items():
        SUITES[name].check(trial)
    return trials


def _load_source(subject: Subject, path: Path, branch: str) -> Subject:
    source = load_subject(path)
    known_branch(source.model, branch)
    check_source(subject, source)
    return source


def _choose_suites(
    name: str | Path, suites: Sequence[str] | None, folders: Mapping[str, Path]
) -> Sequence[str]:
    """Return `suites`, or those that have images; raises ValueError for unusable ones."""
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


def _check_attacks(suites: Sequence[str], *, all_branches: bool, source: str | Path | None) -> None:
    """Raise ValueError if no suite uses an attack's option, or a suite lacks its source."""
    if all_branches and "adversarial" not in suites:
        raise ValueError(
            f"all branches are attacked in suite adversarial, which is not among "
            f"{', '.join(suites)}: name it too, or leave --all-branches out"
        )
    needing = [name for name in suites if SUITES[name].needs_source]
    if needing and source is None:
        raise ValueError(
            f'suite "{needing[0]}" shows another model\'s adversarial images: name its run or '
            "export, --source OTHER_RUN"
        )
    if source is not None and not needing:
        takers = ", ".join(name for name, suite in SUITES.items() if suite.needs_source)
        raise ValueError(
            f"source {source} is used by suite {takers} alone: add --suite {takers}, or leave "
            "--source out"
        )


def _check_labels(suites: Sequence[str], *, multi_label: bool) -> None:
    """Raise ValueError for a suite that needs one class per image if there are several labels."""
    if not multi_label:
        return
    if refused := [name for name in suites if not SUITES[name].takes_labels]:
        taken = ", ".join(name for name, suite in SUITES.items() if suite.takes_labels)
        raise ValueError(
            f"suite {refused[0]} needs images of one class each, this model predicts several "
            f"labels: choose from {taken}"
        )


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
