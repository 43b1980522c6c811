"""The gallery: pictures with their pixel sizes and the model's predictions."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from advprop.results.summary import kind_of

PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/]+={0,2})")
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_BYTES = 3_000_000  # of all pictures together
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
    """The clean image, perturbation and adversarial image of a test image, and both predictions.

    `saliency` has maps of what the model looks at in the clean image, their titles as kinds.
    """

    label: str
    name: str
    clean_prediction: str
    adversarial_prediction: str
    pictures: tuple[Picture | None, ...]
    saliency: tuple[Picture, ...] = ()

    @property
    def clean_right(self) -> bool:
        """Whether the clean image was classified correctly."""
        return self.clean_prediction == self.label

    @property
    def adversarial_right(self) -> bool:
        """Whether the adversarial image was classified correctly."""
        return self.adversarial_prediction == self.label


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The triples of one run."""

    method: str
    seed: str
    triples: tuple[Triple, ...]

    @property
    def sentence(self) -> str:
        """The numbers of shown images classified correctly when clean and when attacked."""
        clean = sum(triple.clean_right for triple in self.triples)
        attacked = sum(triple.adversarial_right for triple in self.triples)
        return f"{clean} of {len(self.triples)} right when clean, {attacked} when attacked"


def galleries(
    records: Sequence[Mapping[str, Any]], *, most_bytes: int = MOST_BYTES
) -> list[Gallery]:
    """Return the first gallery of each method, AdvProp first.

    If pictures exceed `most_bytes`, each gallery keeps fewer images, the last ones perhaps none.
    """
    found: dict[str, Gallery] = {}
    for record in sorted(records, key=lambda record: kind_of(record) != "advprop"):
        method = str(record["method"])
        if record.get("gallery") and method not in found:
            triples = tuple(_triple(item) for item in record["gallery"])
            found[method] = Gallery(method=method, seed=str(record["seed"]), triples=triples)
    ordered = list(found.values())
    kept = _within([gallery.triples for gallery in ordered], most_bytes)
    return [
        replace(gallery, triples=gallery.triples[:number])
        for gallery, number in zip(ordered, kept, strict=True)
        if number
    ]


def _within(every: Sequence[Sequence[Triple]], most_bytes: int) -> list[int]:
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
        "clean": f"clean image of class {label}, read as {clean}",
        "perturbation": f"perturbation of the image of class {label}, stretched to full contrast",
        "adversarial": f"adversarial image of class {label}, read as {attacked}",
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
    """Return a picture from a PNG's data URL; None for anything else, as nothing is downloaded."""
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
