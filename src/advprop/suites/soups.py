"""Tests branch soups, plain models between two branches, on suites."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advprop.auxiliary.branches import branch_names
from advprop.auxiliary.route import CLEAN
from advprop.auxiliary.soup import check_weight
from advprop.runs.exporting import check_branches
from advprop.suites.registry import SUITES
from advprop.suites.subjects import Subject
from advprop.suites.trial import Trial


def checked_weights(
    subject: Subject, weights: Sequence[float], *, branches: tuple[str, str]
) -> tuple[float, ...]:
    """Return `weights` and 0, sorted, each once; an empty tuple if there are no weights.

    Raises ValueError for a weight outside [0, 1], a subject without branches, or `branches` (the
    tested and the attacked one) other than the clean one, since soups have no branches.
    """
    if not weights:
        return ()
    check_branches(subject.model, subject.name)
    for weight in weights:
        check_weight(weight)
    if branches != (CLEAN, CLEAN):
        raise ValueError(
            f"branch {next(b for b in branches if b != CLEAN)} together with branch soups: soups "
            "have no branches; leave --eval-branch and --attack-branch out, or leave --mix out"
        )
    return tuple(sorted({0.0, *map(float, weights)}))


def soup_points(
    trials: Mapping[str, Trial], known: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Return `{branch, weight, suite, accuracy, ci95}` for each weight and suite.

    `known` has the suites' results for the clean branch, which are those of weight 0.
    """
    any_trial = next(iter(trials.values()))
    subject, points = any_trial.subject, []
    assert subject.mix is not None
    _, branch, *_ = branch_names(subject.model)
    # a point is one accuracy: no curve over epsilon, no pairs of branches
    settings = subject.evaluation.model_copy(update={"epsilons": (), "l2_epsilons": ()})
    for weight in any_trial.mix:
        mixed = replace(subject, model=subject.mix(weight), evaluation=settings)
        for suite, trial in trials.items():
            own = replace(trial, subject=mixed, all_branches=False)
            found = known[suite] if weight == 0 else SUITES[suite].run(own)
            points.append(
                {
                    "branch": branch,
                    "weight": weight,
                    "suite": suite,
                    "accuracy": found[f"{suite}_accuracy"],
                    "ci95": found["ci95"],
                }
            )
    return points
