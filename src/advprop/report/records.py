"""What a run recorded, checked and typed: the report's view of the JSON.

Keys that the report does not draw are passed over, and all parts may be missing. A value of the
wrong kind is a ValueError that says where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import model_validator

from advprop.files.parsing import Number, Part, read_part

Json = Mapping[str, Any]


class PredictedImage(Part):
    """A test image: what it is called by, its class and (where kept) its picture."""

    id: str
    label: str
    picture: str | None = None
    name: str = ""


class Predictions(Part):
    """Answers to test images, in the same order."""

    images: tuple[PredictedImage, ...] = ()
    clean: tuple[str, ...] = ()
    confidence: tuple[Number, ...] = ()

    @model_validator(mode="after")
    def _same_length(self) -> Predictions:
        if not len(self.images) == len(self.clean) == len(self.confidence):
            raise ValueError("images, clean and confidence differ in length")
        return self


class Attacked(Part):
    """A test image of the gallery: its class, and what the model takes it for."""

    label: str
    clean_prediction: str
    adversarial_prediction: str


class Layer(Part):
    """How far the branches of a normalisation layer lie apart."""

    layer: str
    mean_distance: Number | None = None
    variance_ratio: Number | None = None
    weight_distance: Number | None = None
    bias_distance: Number | None = None


class Record(Part):
    """What a run recorded for the report."""

    method: str = ""
    seed: str = ""
    gallery: tuple[Attacked, ...] | None = None
    statistics: tuple[Layer, ...] | None = None
    predictions: Predictions = Predictions()


def read_records(records: Sequence[Json]) -> list[Record]:
    """The records, as far as they are browsed."""
    return [read_part(Record, record) for record in records]
