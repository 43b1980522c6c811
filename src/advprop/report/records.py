"""The JSON schema of the run records that the report shows.

Unknown keys are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import model_validator

from advprop.files.parsing import Number, Part, read_part

Json = Mapping[str, Any]


class PredictedImage(Part):
    """A test image: its id, class and name, and its picture as a data URL (None if not stored)."""

    id: str
    label: str
    picture: str | None = None
    name: str = ""


class Predictions(Part):
    """The predicted class and the confidence, from 0 to 1, for each of `images`, in their order."""

    images: tuple[PredictedImage, ...] = ()
    clean: tuple[str, ...] = ()
    confidence: tuple[Number, ...] = ()

    @model_validator(mode="after")
    def _same_length(self) -> Predictions:
        if not len(self.images) == len(self.clean) == len(self.confidence):
            raise ValueError("images, clean and confidence differ in length")
        return self


class SaliencyMap(Part):
    """A titled map that shows which parts of an image matter to the model, as a data URL."""

    title: str
    picture: str | None = None


class Attacked(Part):
    """A test image of the gallery: its class, its pictures as data URLs, and both predictions."""

    label: str
    name: str = ""
    clean: str | None = None
    perturbation: str | None = None
    adversarial: str | None = None
    clean_prediction: str
    adversarial_prediction: str
    saliency: tuple[SaliencyMap, ...] = ()

    @property
    def clean_right(self) -> bool:
        """Return whether the clean image was classified correctly."""
        return self.clean_prediction == self.label

    @property
    def adversarial_right(self) -> bool:
        """Return whether the adversarial image was classified correctly."""
        return self.adversarial_prediction == self.label


class Layer(Part):
    """The distances between two branches of a normalisation layer (`BranchDistance`)."""

    layer: str
    mean_distance: Number | None = None
    variance_ratio: Number | None = None
    weight_distance: Number | None = None
    bias_distance: Number | None = None


class Record(Part):
    """The record of one run: its gallery, branch statistics and predictions."""

    method: str = ""
    kind: str = ""
    seed: str = ""
    gallery: tuple[Attacked, ...] | None = None
    statistics: tuple[Layer, ...] | None = None
    predictions: Predictions = Predictions()


def read_records(records: Sequence[Json]) -> list[Record]:
    """Return the validated records; raises ValueError that names a missing or wrong value."""
    return [read_part(Record, record) for record in records]
