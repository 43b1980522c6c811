"""The pictures of the page: the gallery of attacked images, and the test images to search."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from advprop.report.records import Attacked, Record

PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/]+={0,2})")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GALLERY_BYTES, BROWSE_BYTES = 3_000_000, 4_500_000  # limits for all pictures together


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One PNG as a data URL, its size in pixels, and its alternative text."""

    kind: str
    source: str
    width: int
    height: int
    alt: str


@dataclass(frozen=True, kw_only=True)
class Triple:
    """A test image, with `pictures` of it clean, of its perturbation and attacked.

    `saliency` has maps of the parts of the clean image that matter to the model; a map's `kind` is
    its title.
    """

    image: Attacked
    pictures: tuple[Picture | None, ...]
    saliency: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The triples of one run."""

    method: str
    seed: str
    triples: tuple[Triple, ...]

    @property
    def sentence(self) -> str:
        """Return a sentence with the numbers of correct clean and correct attacked images."""
        clean = sum(triple.image.clean_right for triple in self.triples)
        attacked = sum(triple.image.adversarial_right for triple in self.triples)
        return f"{clean} of {len(self.triples)} correct without attack, {attacked} under attack"


def galleries(records: Sequence[Record], *, most_bytes: int = GALLERY_BYTES) -> list[Gallery]:
    """Return the first gallery of each method, AdvProp's first.

    If the pictures exceed `most_bytes`, galleries keep fewer images, assigned in turns, and empty
    galleries are omitted.
    """
    found: dict[str, Gallery] = {}
    for record in sorted(records, key=lambda record: (record.kind or record.method) != "advprop"):
        if record.gallery and record.method not in found:
            triples = tuple(map(_triple, record.gallery))
            found[record.method] = Gallery(method=record.method, seed=record.seed, triples=triples)
    ordered = list(found.values())
    turns = sorted(
        (t, at) for at, gallery in enumerate(ordered) for t in range(len(gallery.triples))
    )
    kept, left = [0] * len(ordered), most_bytes
    for turn, at in turns:
        triple = ordered[at].triples[turn]
        shown = [picture for picture in (*triple.pictures, *triple.saliency) if picture is not None]
        left -= sum(len(picture.source) for picture in shown)
        if left < 0:
            break
        kept[at] += 1
    return [
        replace(gallery, triples=gallery.triples[:number])
        for gallery, number in zip(ordered, kept, strict=True)
        if number
    ]


def _triple(image: Attacked) -> Triple:
    label = image.label
    pictures = {
        "clean": f"clean image of class {label}, predicted as {image.clean_prediction}",
        "perturbation": f"perturbation of the image of class {label}, stretched to full contrast",
        "adversarial": f"adversarial image of class {label}, predicted as "
        f"{image.adversarial_prediction}",
    }
    maps = (
        read_picture(m.picture, m.title, f"{m.title}, for class {label}") for m in image.saliency
    )
    return Triple(
        image=image,
        pictures=tuple(read_picture(getattr(image, k), k, alt) for k, alt in pictures.items()),
        saliency=tuple(picture for picture in maps if picture is not None),
    )


def read_picture(source: str | None, kind: str, alt: str) -> Picture | None:
    """Return the picture in a PNG's data URL, or None for anything else: nothing is downloaded."""
    match = PNG.fullmatch(source or "")
    if match is None:
        return None
    try:
        head = base64.b64decode(match[1][:32])
    except binascii.Error:
        return None
    if len(head) < 24 or not head.startswith(PNG_SIGNATURE):
        return None
    width, height = (int.from_bytes(head[at : at + 4], "big") for at in (16, 20))
    return Picture(kind=kind, source=match[0], width=width, height=height, alt=alt)


def browse(records: Sequence[Record], *, most_bytes: int = BROWSE_BYTES) -> dict[str, Any] | None:
    """Return the data that the page searches, or None if no run has recorded predictions.

    `labels` are class names, `images` lists of [picture, index of the label, name]. `sets` are
    lists of image indices, each shared by all runs on the same images. `methods` hold their runs,
    each with its set, predictions (as indices of labels) and confidences in percent. Images without
    a picture are left out, and if the others exceed `most_bytes`, all but every second, third, ...
    of them; `left_out` counts both.
    """
    records = [record for record in records if record.predictions.images]
    if not records:
        return None
    every = {image.id: image for record in records for image in record.predictions.images}
    sizes = {i.id: len(p.source) for i in every.values() if (p := read_picture(i.picture, "", ""))}
    step = -(-sum(sizes.values()) // most_bytes) or 1
    kept = [every[identity] for identity in list(sizes)[::step]]
    place = {image.id: number for number, image in enumerate(kept)}
    labels: dict[str, int] = {}
    images = [
        [image.picture or "", labels.setdefault(image.label, len(labels)), image.name]
        for image in kept
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
