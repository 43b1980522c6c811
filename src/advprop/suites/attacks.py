"""The suites adversarial, autoattack and transfer; their results name the branches used."""

from __future__ import annotations

from itertools import product
from typing import Any

from advprop.auxiliary.branches import attack_mode, branch_names
from advprop.auxiliary.route import CLEAN, has_auxiliary_norms
from advprop.evaluation.autoattack import evaluate_autoattack
from advprop.evaluation.robustness import evaluate_adversarial, evaluate_curve, evaluate_transfer
from advprop.suites.subjects import Subject, through_branch
from advprop.suites.trial import Trial


def adversarial(trial: Trial) -> dict[str, Any]:
    """Return the accuracy under PGD with restarts, attacking and testing through chosen branches.

    If requested, the result includes a `curve` over epsilons and all `pairs` of branches.
    """
    (split, source), settings = trial.images, trial.settings
    batches, attack = trial.batches(split), settings.attack.build()
    options: dict[str, Any] = {
        "attacked_logits_fn": trial.attacked_logits_fn,
        "restarts": settings.restarts,
    }
    with attack_mode(trial.subject.model):
        found = evaluate_adversarial(trial.logits_fn, batches, attack=attack, **options)
        if attacks := settings.curve():
            found["curve"] = evaluate_curve(trial.logits_fn, batches, attacks=attacks, **options)
        if trial.all_branches:
            found["pairs"] = _pairs(trial)
    return {**found, **_branches(trial), "images": source}


def autoattack(trial: Trial) -> dict[str, Any]:
    """Return the accuracy under AutoAttack's standard version."""
    split, source = trial.images
    with attack_mode(trial.subject.model):
        found = evaluate_autoattack(
            trial.logits_fn,
            trial.batches(split),
            threat_model=trial.settings.attack.threat_model.build(),
            attacked_logits_fn=trial.attacked_logits_fn,
        )
    return {**found, **_branches(trial), "images": source}


def transfer(trial: Trial) -> dict[str, Any]:
    """Return the accuracy on adversarial images that were made for the trial's source."""
    assert trial.source is not None
    split, source = trial.images
    model = trial.source.model
    with attack_mode(trial.subject.model), attack_mode(model):
        found = evaluate_transfer(
            trial.logits_fn,
            trial.batches(split),
            attack=trial.settings.attack.build(),
            source_logits_fn=through_branch(model, trial.source_branch),
            restarts=trial.settings.restarts,
        )
    return {
        **found,
        "source": trial.source.name,
        "source_weights": trial.source.weights,
        "attack_branch": trial.source_branch,
        "eval_branch": trial.eval_branch,
        "images": source,
    }


def check_source(subject: Subject, source: Subject) -> None:
    """Raise ValueError if `source` differs from `subject` in image shape or classes."""
    ours, theirs = subject.preprocessing.image_shape, source.preprocessing.image_shape
    if ours != theirs:
        raise ValueError(
            f"{source.name}: takes images of {_size(theirs)}, {subject.name} of {_size(ours)}; "
            "choose a source of the same size"
        )
    if subject.class_names != source.class_names:
        raise ValueError(
            f"{source.name}: has other classes than {subject.name} ({len(source.class_names)}, "
            f"first {source.class_names[0]}, against {len(subject.class_names)}, first "
            f"{subject.class_names[0]}); choose a source trained on the same classes"
        )


def _pairs(trial: Trial) -> list[dict[str, Any]]:
    """Return the accuracy for every pair of attacked branch and tested branch."""
    model = trial.subject.model
    branches = branch_names(model) if has_auxiliary_norms(model) else (CLEAN,)
    split, _ = trial.images
    pairs = []
    for attacked, tested in product(branches, branches):
        found = evaluate_adversarial(
            through_branch(model, tested),
            trial.batches(split),
            attack=trial.settings.attack.build(),
            attacked_logits_fn=through_branch(model, attacked),
            restarts=trial.settings.restarts,
        )
        pairs.append(
            {
                "attack_branch": attacked,
                "eval_branch": tested,
                "accuracy": found["adversarial_accuracy"],
                "ci95": found["ci95"],
            }
        )
    return pairs


def _branches(trial: Trial) -> dict[str, str]:
    return {"attack_branch": trial.attack_branch, "eval_branch": trial.eval_branch}


def _size(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{channels} channel{'s' * (channels > 1)} and {height}x{width} pixels"
