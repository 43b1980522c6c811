"""The report's schema of run records in JSON.

Unknown keys are ignored, and all parts are optional. A value of the wrong type raises ValueError
with its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import model_validator

from advprop.files.parsing import Number, Part, read_part

Json = Mapping[str, Any]


class PredictedImage(Part):
    """A test image: its id and name, its class, and its picture if stored."""

    id: str
    label: str
    picture: str | None = None
    name: str = ""


class Predictions(Part):
    """Predictions for test images, in the same order."""

    images: tuple[PredictedImage, ...] = ()
    clean: tuple[str, ...] = ()
    confidence: tuple[Number, ...] = ()

    @model_validator(mode="after")
    def _same_length(self) -> Predictions:
        if not len(self.images) == len(self.clean) == len(self.confidence):
            raise ValueError("images, clean and confidence differ in length")
        return self


class SaliencyMap(Part):
    """A map of the parts of an image that matter to the model, and its title."""

    title: str
    picture: str | None = None


class Attacked(Part):
    """A test image of the gallery: its class, and the predictions when clean and attacked."""

    label: str
    clean_prediction: str
    adversarial_prediction: str
    saliency: tuple[SaliencyMap, ...] = ()


class Layer(Part):
    """The distances between the branches of a normalisation layer."""

    layer: str
    mean_distance: Number | None = None
    variance_ratio: Number | None = None
    weight_distance: Number | None = None
    bias_distance: Number | None = None


class Record(Part):
    """The record of a run for the report."""

    method: str = ""
    seed: str = ""
    gallery: tuple[Attacked, ...] | None = None
    statistics: tuple[Layer, ...] | None = None
    predictions: Predictions = Predictions()


def read_records(records: Sequence[Json]) -> list[Record]:
    """Return the validated records."""
    return [read_part(Record, record) for record in records]
