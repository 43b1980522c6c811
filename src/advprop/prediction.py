"""What a model says about image files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import torch

from advprop.auxiliary.branches import has_auxiliary_norms, use_branch
from advprop.auxiliary.norm import CLEAN
from advprop.data.preprocessing import Preprocessing
from advprop.models.standardize import Standardized
from advprop.shapes import Images, Logits


def predict(
    model: Standardized,
    images: Sequence[str | Path],
    *,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    top: int = 3,
    batch_size: int = 32,
) -> list[list[tuple[str, float]]]:
    """The `top` classes of each image file with their probabilities, the most probable first.

    Files are read as in evaluation, and go through the clean branch in eval mode; the model's mode
    is as before after it. All classes are listed where there are fewer than `top`. ValueError: an
    unreadable file (named), no file, or `top` below 1.
    """
    if not images:
        raise ValueError("no image named: give at least one file")
    if top < 1 or batch_size < 1:
        raise ValueError(f"top={top}, batch_size={batch_size}: both must be at least 1")
    found = []
    for first in range(0, len(images), batch_size):
        paths = images[first : first + batch_size]
        logits = _clean_logits(model, torch.stack([preprocessing(path) for path in paths]))
        if logits.shape[1] != len(class_names):
            raise ValueError(f"{len(class_names)} class names for {logits.shape[1]} logits")
        probabilities, classes = logits.softmax(dim=1).topk(min(top, len(class_names)))
        found += [
            [(class_names[index], value) for index, value in zip(*row, strict=True)]
            for row in zip(classes.tolist(), probabilities.tolist(), strict=True)
        ]
    return found


@torch.no_grad()
def _clean_logits(model: Standardized, images: Images) -> Logits:
    training = model.training
    model.eval()
    try:
        with use_branch(model, CLEAN) if has_auxiliary_norms(model) else nullcontext():
            logits: Logits = model(images.to(model.mean.device, model.mean.dtype))
            return logits.float().cpu()
    finally:
        model.train(training)
