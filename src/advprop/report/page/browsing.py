"""Collects the test images that readers can search, with the predictions of every run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from advprop.report.images.gallery import read_picture
from advprop.report.records import PredictedImage, Record

MOST_BYTES = 4_500_000  # of all pictures together


def browse(records: Sequence[Record], *, most_bytes: int = MOST_BYTES) -> dict[str, Any] | None:
    """Return the data that the page searches, or None if no run has recorded predictions.

    `labels` are class names, `images` lists of [picture, index of the label, name]. `sets` are
    lists of image indices, each shared by all runs on the same images. `methods` hold their runs,
    each with its set, predictions (as indices of labels) and confidences in percent. Pictures
    beyond `most_bytes` are dropped with predictions, evenly over sets; `left_out` counts them.
    """
    records = [record for record in records if record.predictions.images]
    if not records:
        return None
    every = {image.id: image for record in records for image in record.predictions.images}
    kept = _within([record.predictions.images for record in records], every, most_bytes)
    place = {identity: number for number, identity in enumerate(kept)}
    labels: dict[str, int] = {}
    images = [
        [image.picture or "", labels.setdefault(image.label, len(labels)), image.name]
        for image in map(every.__getitem__, kept)
    ]
    sets: dict[tuple[int, ...], int] = {}
    methods: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        answers = zip(
            record.predictions.images,
            record.predictions.clean,
            record.predictions.confidence,
            strict=True,
        )
        seen = [(place[i.id], name, sure) for i, name, sure in answers if i.id in place]
        methods.setdefault(record.method, []).append(
            {
                "seed": record.seed,
                "set": sets.setdefault(tuple(number for number, _, _ in seen), len(sets)),
                "clean": [labels.setdefault(name, len(labels)) for _, name, _ in seen],
                "confidence": [round(100 * sure) for _, _, sure in seen],
            }
        )
    return {
        "labels": list(labels),
        "images": images,
        "sets": [list(numbers) for numbers in sets],
        "methods": [{"name": name, "runs": runs} for name, runs in methods.items()],
        "left_out": len(every) - len(kept),
    }


def _within(
    seen: Sequence[Sequence[PredictedImage]], every: dict[str, PredictedImage], most_bytes: int
) -> list[str]:
    """Return the images to keep, in the order in which the runs saw them."""
    sets = dict.fromkeys(tuple(image.id for image in images) for images in seen)
    by_turns = dict.fromkeys(
        identity
        for turn in zip_longest(*(_spread(identities) for identities in sets))
        for identity in turn
        if identity is not None
    )
    kept, total = set(), 0
    for identity in by_turns:
        picture = read_picture(every[identity].picture, "clean", "")
        if picture is None:
            continue
        total += len(picture.source)
        if total > most_bytes:
            break
        kept.add(identity)
    return [identity for identity in every if identity in kept]


def _spread(identities: Sequence[str]) -> list[str]:
    """Return `identities` in an order whose every prefix is spread over the whole."""
    order = sorted(range(len(identities)), key=lambda number: int(f"{number:016b}"[::-1], 2))
    return [identities[number] for number in order]
