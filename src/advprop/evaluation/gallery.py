"""Pictures for the report: clean image, perturbation and adversarial image, as PNG in JSON."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from advprop.attacks.pgd import Attack
from advprop.randomness import ImageStreams
from advprop.shapes import Batch, LogitsFn


def record_gallery(
    logits_fn: LogitsFn,
    batch: Batch,
    *,
    attack: Attack,
    attacked_logits_fn: LogitsFn,
    class_names: Sequence[str],
) -> list[dict[str, Any]]:
    """One entry an image of `batch`: three pictures, the label and both predictions.

    The perturbation is stretched so that its largest value reaches black or white; grey is zero.
    """
    indices = range(len(batch)) if batch.indices is None else batch.indices
    streams = ImageStreams.for_batch(0, 0, indices)
    adversarial = attack(attacked_logits_fn, batch.images, batch.labels, generator=streams)
    with torch.no_grad():
        before = logits_fn(batch.images).argmax(dim=1).tolist()
        after = logits_fn(adversarial).argmax(dim=1).tolist()
    return [
        {
            "clean": _picture(clean),
            "perturbation": _picture(_stretched(attacked - clean)),
            "adversarial": _picture(attacked),
            "label": class_names[label],
            "clean_prediction": class_names[clean_class],
            "adversarial_prediction": class_names[adversarial_class],
        }
        for clean, attacked, label, clean_class, adversarial_class in zip(
            batch.images, adversarial, batch.labels.tolist(), before, after, strict=True
        )
    ]


def _stretched(perturbation: Tensor) -> Tensor:
    largest = perturbation.abs().max().clamp_min(1e-12)
    return perturbation / (2 * largest) + 0.5


def _picture(image: Tensor) -> str:
    pixels = (image.clamp(0, 1) * 255).round().byte().cpu()
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
