"""Records pictures and predictions of adversarial and clean images for the report, as JSON."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from advprop.attacks.attack import Attack
from advprop.evaluation.accuracy import evaluation_streams, image_indices
from advprop.evaluation.saliency import Maps
from advprop.files.parsing import printable
from advprop.shapes import Batch, LogitsFn

_SMALL_SIDE = 64


def record_gallery(
    logits_fn: LogitsFn,
    batch: Batch,
    *,
    attack: Attack,
    class_names: Sequence[str],
    names: Sequence[str] = (),
    saliency: Mapping[str, Maps] = {},
) -> list[dict[str, Any]]:
    """Return an entry for each image of `batch`: three pictures, the label and both predictions.

    `names` are those of all images of the split. The perturbation is scaled so that its largest
    value becomes black or white; grey is zero. `saliency` has maps of the clean images by title,
    which are drawn with at most 64 pixels a side.
    """
    indices = image_indices(batch)
    streams = evaluation_streams(indices)
    adversarial = attack(logits_fn, batch.images, batch.labels, generator=streams)
    with torch.no_grad():
        before = logits_fn(batch.images).argmax(dim=1).tolist()
        after = logits_fn(adversarial).argmax(dim=1).tolist()
    labels = batch.labels.tolist()
    return [
        {
            **_name(names, index),
            "clean": _png(batch.images[place]),
            "perturbation": _png(_stretched(adversarial[place] - batch.images[place])),
            "adversarial": _png(adversarial[place]),
            "label": class_names[labels[place]],
            "clean_prediction": class_names[before[place]],
            "adversarial_prediction": class_names[after[place]],
            "saliency": [
                {"title": title, "picture": _png(maps[place], _SMALL_SIDE)}
                for title, maps in saliency.items()
            ],
        }
        for place, index in enumerate(indices.tolist())
    ]


def record_predictions(
    logits_fn: LogitsFn,
    batches: Iterable[Batch],
    *,
    class_names: Sequence[str],
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Return predictions for clean images: `images`, `clean`, `confidence`, in the same order.

    `names` are those of all images of the split. An image's `id` depends only on its pixels, so
    that the predictions of several runs can be joined; its `picture` has at most 64 pixels a side.
    """
    images: list[dict[str, str]] = []
    clean: list[str] = []
    confidence: list[float] = []
    for batch in batches:
        with torch.no_grad():
            sure, classes = logits_fn(batch.images).softmax(dim=1).max(dim=1)
        clean += [class_names[place] for place in classes.tolist()]
        confidence += [round(share, 4) for share in sure.tolist()]
        images += [
            {
                "id": _identity(image),
                "label": class_names[label],
                "picture": _png(image, _SMALL_SIDE),
                **_name(names, index),
            }
            for image, label, index in zip(
                batch.images, batch.labels.tolist(), image_indices(batch).tolist(), strict=True
            )
        ]
    return {"images": images, "clean": clean, "confidence": confidence}


def _name(names: Sequence[str], index: int) -> dict[str, str]:
    """Return the image's name for the reader, unless it is only a number."""
    if not names or names[index].isdecimal():
        return {}
    return {"name": printable(names[index])}


def _stretched(perturbation: Tensor) -> Tensor:
    largest = perturbation.abs().max().clamp_min(1e-12)
    return perturbation / (2 * largest) + 0.5


def _identity(image: Tensor) -> str:
    pixels = _pixels(image)
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()[:12]


def _pixels(image: Tensor) -> Any:
    """Return bytes of shape [height, width], or [height, width, channels] for colour images."""
    pixels = (image.clamp(0, 1) * 255).round().byte().cpu()
    return pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).numpy()


def _png(image: Tensor, most: int | None = None) -> str:
    """Return the data URL of a PNG with at most `most` pixels a side (None: all its pixels)."""
    picture = Image.fromarray(_pixels(image))
    if most is not None:
        picture.thumbnail((most, most))
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
