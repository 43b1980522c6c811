"""AutoAttack's standard version (Croce & Hein 2020), run by `pyautoattack` and checked here."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from advprop.attacks.pgd import check_images
from advprop.attacks.threat_models import ThreatModel
from advprop.evaluation.accuracy import EVALUATION_SEED
from advprop.evaluation.robustness import Tally, part_of
from advprop.randomness import random_streams
from advprop.results.intervals import bootstrap_interval
from advprop.shapes import Batch, Images, LogitsFn, correct_predictions

COMPONENTS = ("apgd-ce", "apgd-t", "fab-t", "square")
_TARGETS = 9
_FEWEST_CLASSES = 4
_FEWEST_PIXELS = 5
_ROUNDING = 1e-4
# iterations of APGD and FAB, and queries of Square, in the standard version
ITERATIONS, QUERIES = 100, 5000


def evaluate_autoattack(
    logits_fn: LogitsFn,
    batches: Iterable[Batch],
    *,
    threat_model: ThreatModel,
    attacked_logits_fn: LogitsFn,
) -> dict[str, Any]:
    """Return `autoattack_accuracy`, the share of images correct when clean and after all attacks.

    Each of the four attacks runs on the images that are still correct; `after` holds the accuracy
    after each. An attack's images are projected into the threat model and [0, 1] and classified by
    `logits_fn`; `num_corrected` counts those that were outside by more than rounding. Attacks draw
    random numbers by batch, so another batch size gives slightly different results.

    Raises ImportError without pyautoattack; ValueError as `check_images`, for fewer than four
    classes, sides below 5 pixels, or no images.
    """
    tally, start = Tally(threat_model), time.perf_counter()
    notes = Notes()
    for batch in batches:
        check_images(batch.images)
        with torch.no_grad():
            logits = logits_fn(batch.images)
        _check_sizes(logits, batch.images)
        was_right = correct_predictions(logits, batch.labels)
        attack = _standard(attacked_logits_fn, threat_model, batch, logits.shape[1])
        adversarial, correct = _cascade(attack, batch, was_right, logits_fn, threat_model, notes)
        fell = was_right & ~correct
        tally.add(correct, batch.images[fell], adversarial[fell])
    count, numbers = len(tally.flags), tally.numbers()
    return {
        "autoattack_accuracy": tally.accuracy,
        "ci95": bootstrap_interval(tally.flags),
        "threat_model": type(threat_model).__name__,
        "epsilon": threat_model.epsilon,
        "clean_accuracy": notes.survivors.pop("clean") / count,
        "after": {name: number / count for name, number in notes.survivors.items()},
        **{key: numbers[key] for key in ("perturbation", "largest") if key in numbers},
        "num_corrected": notes.corrected,
        "remarks": sorted(set(notes.remarks)),
        "seconds": time.perf_counter() - start,
        "num_images": count,
    }


@dataclass
class Notes:
    """Counts and warnings of the attacks, collected over batches."""

    survivors: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(("clean", *COMPONENTS), 0)
    )
    corrected: int = 0
    remarks: list[str] = field(default_factory=list)


def _cascade(
    attack: Any,
    batch: Batch,
    was_right: Tensor,
    logits_fn: LogitsFn,
    threat_model: ThreatModel,
    notes: Notes,
) -> tuple[Images, Tensor]:
    """Run each attack on the images still correct; return the images and which stay correct."""
    adversarial, correct = batch.images.clone(), was_right.clone()
    notes.survivors["clean"] += int(correct.sum())
    for name in COMPONENTS:
        if bool(correct.any()):
            right = part_of(batch, correct)
            found, outside = _run(attack, name, right, threat_model, notes.remarks)
            with torch.no_grad():
                stays = correct_predictions(logits_fn(found), right.labels)
            fooled = correct.nonzero().flatten()[~stays]
            adversarial[fooled] = found[~stays]
            correct[fooled] = False
            notes.corrected += outside
        notes.survivors[name] += int(correct.sum())
    return adversarial, correct


def _standard(
    logits_fn: LogitsFn, threat_model: ThreatModel, batch: Batch, num_classes: int
) -> Any:
    """Return pyautoattack's standard version, with at most as many targets as wrong classes."""
    try:
        from pyautoattack import AutoAttack
    except ImportError:
        raise ImportError(
            "the suite autoattack needs pyautoattack: pip install 'advprop[autoattack]'"
        ) from None
    attack = AutoAttack(
        logits_fn,
        norm=type(threat_model).__name__,
        eps=threat_model.epsilon,
        seed=EVALUATION_SEED,
        device=batch.images.device,
        version="standard",
    )
    for part in (attack.apgd, attack.apgd_targeted):
        part.n_iter = part.n_iter_orig = ITERATIONS
    attack.fab.n_iter, attack.square.n_queries = ITERATIONS, QUERIES
    targets = min(_TARGETS, num_classes - 1)
    attack.apgd_targeted.n_target_classes = attack.fab.n_target_classes = targets
    return attack


def _run(
    attack: Any, name: str, batch: Batch, threat_model: ThreatModel, remarks: list[str]
) -> tuple[Images, int]:
    """Return one attack's images, projected into the threat model, and how many lay outside."""
    attack.attacks_to_run = [name]
    # pyautoattack seeds torch's global generator, so its state is restored
    with random_streams(EVALUATION_SEED, "autoattack", name), _collected(remarks):
        found, _ = attack.run_standard_evaluation(batch.images, batch.labels, batch_size=len(batch))
    found = found.detach().nan_to_num(0.0)
    allowed = (batch.images + threat_model.project(found - batch.images)).clamp(0.0, 1.0)
    outside = (allowed - found).abs().flatten(1).amax(dim=1) > _ROUNDING
    return allowed, int(outside.sum())


@contextmanager
def _collected(remarks: list[str]) -> Iterator[None]:
    """Append pyautoattack's warnings to `remarks` instead of printing them."""

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            remarks.append(record.getMessage())

    logger = logging.getLogger("auto-attack")
    handler, propagated = Collector(level=logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagated


def _check_sizes(logits: Tensor, images: Images) -> None:
    if logits.shape[1] < _FEWEST_CLASSES:
        raise ValueError(
            f"{logits.shape[1]} classes: AutoAttack's targeted parts need {_FEWEST_CLASSES}; take "
            "the suite adversarial with more restarts, --restarts 10"
        )
    if min(images.shape[2:]) < _FEWEST_PIXELS:
        raise ValueError(
            f"images of {images.shape[2]}x{images.shape[3]} pixels: Square needs sides of "
            f"{_FEWEST_PIXELS}; take the suite adversarial"
        )
