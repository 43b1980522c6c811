"""Finds test images among a model's training images by comparing pixels exactly."""

from __future__ import annotations

import hashlib
from typing import Any

from advprop.data.batches.loaders import test_batches
from advprop.data.splits import ImageSplit
from advprop.shapes import Batch, in_bytes
from advprop.suites.subjects import Subject


def find_overlap(
    subject: Subject, tested: ImageSplit, *, limit: int | None, bound: int
) -> dict[str, Any]:
    """Count the tested images that are identical to one of the subject's training images.

    Compares images after the evaluation's preprocessing, at most `bound` of either set, spread
    over the set; `limit` is that of the test. Returns the number `found`, the numbers compared
    (`test_images`, `train_images`) and the number of all training images (`of_train_images`), or
    `not_compared`, the reason why no comparison was possible.
    """
    if subject.load_data is None or bound == 0:
        return {"found": 0, "not_compared": "no training images are known, or none wanted"}
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
    return [
        digest
        for batch in test_batches(split, batch_size=250, limit=limit)
        for digest in _batch_digests(batch)
    ]


def _batch_digests(batch: Batch) -> list[bytes]:
    # bytes, so that rounding of float values does not distinguish equal images
    pixels = in_bytes(batch.images).numpy()
    return [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in pixels]
