"""Branch soups under the suites: the same tests for plain models between two branches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from advprop.auxiliary.branches import branch_names
from advprop.auxiliary.route import CLEAN
from advprop.auxiliary.soup import check_weight
from advprop.runs.soups import check_branches
from advprop.suites.registry import SUITES
from advprop.suites.subjects import Subject
from advprop.suites.trial import Trial


def checked_weights(
    subject: Subject, weights: Sequence[float], *, branches: tuple[str, str]
) -> tuple[float, ...]:
    """`weights` sorted, once each and 0 among them; none where there are none.

    ValueError: one outside [0, 1], a subject without branches, or `branches` (tested and attacked)
    that are not the clean one, which the points are drawn beside.
    """
    if not weights:
        return ()
    check_branches(subject.model, subject.name)
    for weight in weights:
        check_weight(weight)
    if branches != (CLEAN, CLEAN):
        raise ValueError(
            f"branches {', '.join(branches)}: soups have none, and stand beside the clean branch; "
            "leave --eval-branch and --attack-branch out, or --mix"
        )
    return tuple(sorted({0.0, *map(float, weights)}))


def soup_points(
    trials: Mapping[str, Trial], known: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """`{branch, weight, suite, accuracy, ci95}` of each soup in each suite, weight by weight.

    `known` is what the suites found of the clean branch, which is the soup of weight 0.
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
