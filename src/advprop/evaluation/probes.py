"""Measures properties of a logits function that can make its accuracies misleading.

The probes return numbers; `checks.py` and `model_checks.py` turn them into red flags.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from advprop.attacks.attack import Attack
from advprop.attacks.objectives import GRADIENT_SCALE
from advprop.attacks.random_search import margins, random_search
from advprop.attacks.threat_models import ThreatModel
from advprop.evaluation.accuracy import evaluation_streams, image_indices, mean, scored
from advprop.evaluation.robustness import attack_with_restarts, part_of
from advprop.shapes import Batch, Images, LogitsFn, correct_predictions

NUM_QUERIES = 50
_ALONE = 4
"""The number of images that are classified again one by one, with a forward pass each."""


@torch.no_grad()
def probe_outputs(logits_fn: LogitsFn, images: Images) -> dict[str, Any]:
    """Return how much the logits change when images are passed again, and when passed one by one.

    Changes are fractions of the largest absolute logit; `row_sum_error` is the largest difference
    of a row's sum from one, `lowest` the smallest logit.
    """
    logits = logits_fn(images).float()
    again = logits_fn(images).float()
    alone = torch.cat([logits_fn(image[None]).float() for image in images[:_ALONE]])
    largest = float(logits.abs().max().clamp_min(1e-12))
    return {
        "num_images": len(images),
        "changed_when_repeated": float((logits - again).abs().max()) / largest,
        "changed_when_alone": float((logits[:_ALONE] - alone).abs().max()) / largest,
        "row_sum_error": float((logits.sum(dim=1) - 1).abs().max()),
        "lowest": float(logits.min()),
    }


def probe_gradients(
    logits_fn: LogitsFn, images: Images, *, threat_model: ThreatModel
) -> dict[str, Any]:
    """Return how many gradients are zero, and how many steps along them do not lower the margin.

    The loss is the attack's, on the predicted class; the step is a tenth of epsilon. The margin,
    unlike the loss, is not lost to rounding if the model is very confident.
    """
    with torch.enable_grad():
        point = images.detach().clone().requires_grad_()
        logits = logits_fn(point)
        predicted = logits.detach().argmax(dim=1)
        loss = GRADIENT_SCALE * F.cross_entropy(logits.float(), predicted, reduction="sum")
        gradient = _gradient(loss, point)
    with torch.no_grad():
        step = threat_model.epsilon / 10 * threat_model.ascent_direction(gradient)
        before = margins(logits.float(), predicted)
        after = margins(logits_fn((images + step).clamp(0.0, 1.0)).float(), predicted)
    zero = gradient.flatten(1).eq(0).all(dim=1)
    return {
        "num_images": len(images),
        "zero_gradients": int(zero.sum()),
        "fruitless_gradients": int((~zero & (after >= before)).sum()),
    }


def probe_black_box(
    logits_fn: LogitsFn,
    batch: Batch,
    *,
    attack: Attack,
    attacked_logits_fn: LogitsFn,
    threat_model: ThreatModel,
    restarts: int = 1,
) -> dict[str, Any]:
    """Return how many images survive the white-box `attack`, a random search, or only the former.

    Both attack the images that are correct when clean, in `threat_model`.
    """
    with torch.no_grad():
        right = part_of(batch, correct_predictions(logits_fn(batch.images), batch.labels))
    if len(right) == 0:
        return {"num_images": 0, "num_queries": NUM_QUERIES, "black_box_only": 0}
    functions = {"attacked_logits_fn": attacked_logits_fn, "logits_fn": logits_fn}
    _, white = attack_with_restarts(attack, right, **functions, restarts=restarts)
    searched = random_search(
        logits_fn,
        right.images,
        right.labels,
        threat_model=threat_model,
        num_queries=NUM_QUERIES,
        streams=evaluation_streams(image_indices(right)),
    )
    with torch.no_grad():
        black = correct_predictions(logits_fn(searched), right.labels)
    return {
        "num_images": len(right),
        "num_queries": NUM_QUERIES,
        "survive_white_box": int(white.sum()),
        "survive_black_box": int(black.sum()),
        "black_box_only": int((white & ~black).sum()),
    }


@torch.no_grad()
def probe_standardisation(
    logits_fn: LogitsFn, plain_logits_fn: LogitsFn, batch: Batch
) -> dict[str, Any]:
    """Return the accuracy with and without the model's first layer."""
    return {
        "num_images": len(batch),
        "accuracy": mean(scored(logits_fn(batch.images), batch.labels)),
        "accuracy_without": mean(scored(plain_logits_fn(batch.images), batch.labels)),
    }


def _gradient(loss: Tensor, point: Tensor) -> Tensor:
    """Return the gradient of `loss` at `point`, or zeros if the loss does not depend on it."""
    if not loss.requires_grad:
        return torch.zeros_like(point)
    (gradient,) = torch.autograd.grad(loss, point, allow_unused=True)
    return torch.zeros_like(point) if gradient is None else gradient.detach()
