"""Finds the red flags of a test by probing the model and checking the suites' results."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from advprop.auxiliary.branches import attack_mode
from advprop.auxiliary.route import CLEAN
from advprop.data.batches.loaders import test_batches
from advprop.data.splits import ImageSplit
from advprop.evaluation import checks, model_checks
from advprop.evaluation.probes import (
    probe_black_box,
    probe_gradients,
    probe_outputs,
    probe_standardisation,
)
from advprop.results.rows import Flag
from advprop.shapes import Batch, in_bytes
from advprop.suites.registry import SUITES, read_images
from advprop.suites.subjects import Subject, through_branch
from advprop.suites.trial import OnDevice, Trial

PROBED = 100
"""The number of images to probe, spread over the set; the problems sought show on any images."""


def find_red_flags(
    trials: Mapping[str, Trial], results: Mapping[str, Mapping[str, Any]]
) -> tuple[list[Flag], dict[str, Any]]:
    """Return the flags, and the numbers of each probe by name.

    Probes use the tested branch, and the images of the suite adversarial, else of clean, else of
    another suite, as long as they are the subject's own or lie in class folders. Without such
    images the model is not probed.
    """
    any_trial = next(iter(trials.values()))
    flags: list[Flag | None] = [
        model_checks.check_finished(any_trial.subject.finished),
        model_checks.check_branch(any_trial.eval_branch, CLEAN),
    ]
    for suite, numbers in results.items():
        flags += _of_figures(suite, numbers, results)
    own = next(
        (name for name in ("adversarial", "clean", *trials) if _has_images(trials, name)), ""
    )
    if not own:
        return _found(flags), {}
    found, looks = _of_model(trials[own], attacked=own == "adversarial")
    flags += found
    looks["overlap"], suspect = _overlaps(trials)
    flags += suspect
    return _found(flags), looks


def _of_figures(
    suite: str, numbers: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]]
) -> list[Flag | None]:
    flags = [checks.check_perturbation(suite, numbers)]
    if "curve" in numbers:
        curve = numbers["curve"]
        flags += [
            checks.check_curve(suite, curve, num_images=numbers["num_images"]),
            *(checks.check_perturbation(suite, point) for point in curve),
        ]
    if suite == "autoattack":
        count = numbers["num_images"]
        flags.append(checks.check_square(suite, numbers["after"], num_images=count))
    if suite == "transfer":
        flags.append(checks.check_transfer(numbers, results.get("adversarial")))
    return flags


def _of_model(trial: Trial, *, attacked: bool) -> tuple[list[Flag | None], dict[str, Any]]:
    """Return flags and numbers of the model; `attacked`: the suite adversarial used the images."""
    model, settings = trial.subject.model, trial.settings
    batch, several = _first(trial), trial.subject.multi_label
    attack = settings.attack.build()
    looks = {"outputs": probe_outputs(trial.logits_fn, batch.images)}
    with attack_mode(model):
        looks["standardisation"] = probe_standardisation(
            trial.logits_fn, through_branch(model.model, trial.eval_branch), batch
        )
        # the further probes ask for the class of an image
        if not several and attack.threat_model.epsilon > 0:
            looks["gradients"] = probe_gradients(
                trial.logits_fn, batch.images, threat_model=attack.threat_model
            )
        if attacked and not several:
            looks["black_box"] = probe_black_box(
                trial.logits_fn,
                batch,
                attack=attack,
                attacked_logits_fn=trial.attacked_logits_fn,
                threat_model=attack.threat_model,
                restarts=settings.restarts,
            )
    flags: list[Flag | None] = [
        *model_checks.check_outputs(looks["outputs"]),
        model_checks.check_standardisation(looks["standardisation"]),
    ]
    if "gradients" in looks:
        flags += model_checks.check_gradients(looks["gradients"])
    if "black_box" in looks:
        flags.append(checks.check_black_box("adversarial", looks["black_box"]))
    return flags, looks


def _overlaps(trials: Mapping[str, Trial]) -> tuple[dict[str, Any], list[Flag | None]]:
    """Return, by set of images, how many are training images, and flags for the first suite."""
    looks: dict[str, Any] = {}
    flags: list[Flag | None] = []
    for suite, trial in trials.items():
        if not _has_images(trials, suite):
            continue
        split, source = trial.images
        if source not in looks:
            looks[source] = find_overlap(
                trial.subject, split, limit=trial.limit, bound=trial.settings.overlap_images
            )
            flags.append(model_checks.check_seen(suite, looks[source]))
    return looks, flags


def _has_images(trials: Mapping[str, Trial], suite: str) -> bool:
    """Return whether a suite's images are in class folders or the subject's own."""
    return (
        suite in trials
        and not SUITES[suite].needs_folder
        and (trials[suite].folder is None or SUITES[suite].check is read_images)
    )


def _first(trial: Trial) -> Batch:
    split, _ = trial.images
    few = OnDevice(
        split=split,
        batch_size=PROBED,
        limit=min(PROBED, trial.limit or PROBED),
        device=trial.subject.model.mean.device,
    )
    return next(iter(few))


def _found(flags: list[Flag | None]) -> list[Flag]:
    return list(dict.fromkeys(flag for flag in flags if flag is not None))


def find_overlap(
    subject: Subject, tested: ImageSplit, *, limit: int | None, bound: int
) -> dict[str, Any]:
    """Return how many tested images are identical to one of the subject's training images.

    Images are compared after the evaluation's preprocessing, at most `bound` of either set, spread
    over the set; `limit` is that of the test. The result has the number `found` and the numbers
    compared (`test_images`, `train_images`) and of all training images (`of_train_images`), or the
    reason why none were compared (`not_compared`).
    """
    if subject.load_data is None or bound == 0:
        return {"found": 0, "not_compared": "no training images are known, or overlap_images is 0"}
    try:
        train = subject.load_data().train
        seen = set(_digests(train, bound))
    except (OSError, ValueError) as error:
        return {"found": 0, "not_compared": str(error)}
    digests = _digests(tested, min(bound, limit or bound))
    return {
        "found": sum(digest in seen for digest in digests),
        "test_images": len(digests),
        "train_images": min(bound, len(train)),
        "of_train_images": len(train),
    }


def _digests(split: ImageSplit, limit: int) -> list[bytes]:
    # bytes, so that rounding of float values does not distinguish equal images
    return [
        hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        for batch in test_batches(split, batch_size=250, limit=limit)
        for pixels in in_bytes(batch.images).numpy()
    ]
