"""The pictures of the page: the gallery of attacked images, and the test images to search."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from advprop.report.records import PredictedImage, Record
from advprop.results.summary import kind_of

PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/]+={0,2})")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
GALLERY_BYTES, BROWSE_BYTES = 3_000_000, 4_500_000  # limits for all pictures together
KINDS = ("clean", "perturbation", "adversarial")


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
    """A test image: `pictures` of it clean, of its perturbation and attacked, and both predictions.

    `saliency` has maps of the parts of the clean image that matter to the model; a map's `kind` is
    its title.
    """

    label: str
    name: str
    clean_prediction: str
    adversarial_prediction: str
    pictures: tuple[Picture | None, ...]
    saliency: tuple[Picture, ...] = ()

    @property
    def clean_right(self) -> bool:
        """Return whether the clean image was classified correctly."""
        return self.clean_prediction == self.label

    @property
    def adversarial_right(self) -> bool:
        """Return whether the adversarial image was classified correctly."""
        return self.adversarial_prediction == self.label


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The triples of one run."""

    method: str
    seed: str
    triples: tuple[Triple, ...]

    @property
    def sentence(self) -> str:
        """Return a sentence with the numbers of correct clean and correct attacked images."""
        clean = sum(triple.clean_right for triple in self.triples)
        attacked = sum(triple.adversarial_right for triple in self.triples)
        return f"{clean} of {len(self.triples)} correct without attack, {attacked} under attack"


def galleries(
    records: Sequence[Mapping[str, Any]], *, most_bytes: int = GALLERY_BYTES
) -> list[Gallery]:
    """Return the first gallery of each method, AdvProp's first.

    If the pictures exceed `most_bytes`, galleries keep fewer images, and empty ones are omitted.
    """
    found: dict[str, Gallery] = {}
    for record in sorted(records, key=lambda record: kind_of(record) != "advprop"):
        method = str(record["method"])
        if record.get("gallery") and method not in found:
            triples = tuple(_triple(item) for item in record["gallery"])
            found[method] = Gallery(method=method, seed=str(record["seed"]), triples=triples)
    ordered = list(found.values())
    kept = _triples_within([gallery.triples for gallery in ordered], most_bytes)
    return [
        replace(gallery, triples=gallery.triples[:number])
        for gallery, number in zip(ordered, kept, strict=True)
        if number
    ]


def _triples_within(every: Sequence[Sequence[Triple]], most_bytes: int) -> list[int]:
    """Return how many triples each gallery keeps, assigned in turns while there is room."""
    kept, left = [0] * len(every), most_bytes
    for turn in range(max(map(len, every), default=0)):
        for place, triples in enumerate(every):
            if turn >= len(triples):
                continue
            shown = (*triples[turn].pictures, *triples[turn].saliency)
            left -= sum(len(picture.source) for picture in shown if picture is not None)
            if left < 0:
                return kept
            kept[place] += 1
    return kept


def _triple(item: Mapping[str, Any]) -> Triple:
    label, clean = str(item["label"]), str(item["clean_prediction"])
    attacked = str(item["adversarial_prediction"])
    texts = {
        "clean": f"clean image of class {label}, predicted as {clean}",
        "perturbation": f"perturbation of the image of class {label}, stretched to full contrast",
        "adversarial": f"adversarial image of class {label}, predicted as {attacked}",
    }
    return Triple(
        label=label,
        name=str(item.get("name", "")),
        clean_prediction=clean,
        adversarial_prediction=attacked,
        pictures=tuple(read_picture(item.get(kind), kind, texts[kind]) for kind in KINDS),
        saliency=tuple(_saliency(item.get("saliency") or (), label)),
    )


def _saliency(maps: Iterable[Mapping[str, Any]], label: str) -> Iterator[Picture]:
    for item in maps:
        title = str(item["title"])
        picture = read_picture(item.get("picture"), title, f"{title}, for class {label}")
        if picture is not None:
            yield picture


def read_picture(source: object, kind: str, alt: str) -> Picture | None:
    """Return the picture in a PNG's data URL, or None for anything else: nothing is downloaded."""
    match = PNG.fullmatch(source) if isinstance(source, str) else None
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
    a picture are dropped and, if pictures exceed `most_bytes`, others evenly over sets; `left_out`
    counts them.
    """
    records = [record for record in records if record.predictions.images]
    if not records:
        return None
    every = {image.id: image for record in records for image in record.predictions.images}
    kept = _images_within([record.predictions.images for record in records], every, most_bytes)
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


def _images_within(
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
    """Return `identities` in an order in which the first N are spread over all, for any N."""
    order = sorted(range(len(identities)), key=lambda number: int(f"{number:016b}"[::-1], 2))
    return [identities[number] for number in order]
