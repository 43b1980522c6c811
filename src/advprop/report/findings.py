"""What the suites found and what a run recorded, checked and typed: the report's view of the JSON.

Keys that the report does not draw are passed over; all parts may be missing. A value of the wrong
kind is a ValueError that says where.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

Json = Mapping[str, Any]
Share = Annotated[float, Field(ge=0, le=1)]
Kind = TypeVar("Kind", bound=BaseModel)


class Part(BaseModel):
    """A piece of JSON that cannot be changed."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        populate_by_name=True,
    )


class ClassResult(Part):
    """One class of the clean suite."""

    name: str = Field(alias="class")
    accuracy: Share
    num_images: int = 0


class Bin(Part):
    """Images whose confidence lies between `low` and `high`."""

    low: float
    high: float
    confidence: Share
    accuracy: Share
    num_images: int = Field(gt=0)


class Calibration(Part):
    """Expected calibration error and the bins it is made of."""

    ece: float
    bins: tuple[Bin, ...] = ()


class Confusion(Part):
    """How many images of a class were taken for another."""

    name: str = Field(alias="class")
    predicted: str
    count: int = Field(gt=0)


class Clean(Part):
    """The clean suite."""

    per_class: tuple[ClassResult, ...] = ()
    confusion: tuple[Confusion, ...] = ()
    calibration: Calibration | None = None


class CurvePoint(Part):
    """Accuracy under one attack of a series."""

    threat_model: str
    epsilon: float = Field(ge=0)
    accuracy: Share
    num_steps: int | None = None
    restarts: int | None = None


class Pair(Part):
    """Accuracy where one branch is attacked and one evaluated."""

    attack_branch: str
    eval_branch: str
    accuracy: Share


class Adversarial(Part):
    """The adversarial suite."""

    curve: tuple[CurvePoint, ...] = ()
    pairs: tuple[Pair, ...] = ()
    num_images: int | None = None


class Corruption(Part):
    """Accuracies of one corruption, severity 1 first."""

    accuracy: tuple[Share, ...] = ()
    mean_error: float | None = None
    ce: float | None = None


class Corruptions(Part):
    """The corruptions suite."""

    by_corruption: dict[str, Corruption] = {}
    extra: dict[str, Corruption] = {}
    mce: float | None = None
    made: str | None = None


class AutoAttack(Part):
    """The AutoAttack suite: accuracy that is left after each of its attacks."""

    after: dict[str, Share] = {}


class Suites(Part):
    """The suites that the report draws more of than an accuracy."""

    clean: Clean = Clean()
    corruptions: Corruptions = Corruptions()
    adversarial: Adversarial = Adversarial()
    autoattack: AutoAttack = AutoAttack()


class Flag(Part):
    """A red flag; an old file has the sentence alone."""

    flag: str = ""
    suite: str | None = None
    message: str
    page: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_sentence(cls, value: Any) -> Any:
        return {"message": value} if isinstance(value, str) else value


class Findings(Part):
    """What `advprop evaluate` found of one run."""

    method: str = ""
    seed: str = ""
    suites: Suites = Suites()
    red_flags: tuple[Flag, ...] = ()

    @field_validator("suites", "red_flags", mode="before")
    @classmethod
    def _missing(cls, value: Any) -> Any:
        return {} if value is None else value


class PredictedImage(Part):
    """A test image: what it is called by, its class and (where kept) its picture."""

    id: str
    label: str
    picture: str | None = None


class Predictions(Part):
    """Answers to test images, in the same order."""

    images: tuple[PredictedImage, ...] = ()
    clean: tuple[str, ...] = ()
    confidence: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _same_length(self) -> Predictions:
        if not len(self.images) == len(self.clean) == len(self.confidence):
            raise ValueError("images, clean and confidence differ in length")
        return self


class Record(Part):
    """What a run recorded for the report, as far as it is browsed."""

    method: str = ""
    seed: str = ""
    predictions: Predictions = Predictions()


def check_findings(found: Json) -> None:
    """Raise ValueError where `found`, as `advprop evaluate` writes it, is none of the kind."""
    _read(Findings, found)


def check_record(record: Json) -> None:
    """Raise ValueError where the predictions of `record` are none."""
    _read(Record, record)


def read_findings(found: Iterable[Json]) -> dict[str, list[Findings]]:
    """Findings of each method."""
    by_method: dict[str, list[Findings]] = {}
    for item in found:
        parsed = _read(Findings, item)
        by_method.setdefault(parsed.method, []).append(parsed)
    return by_method


def read_records(records: Sequence[Json]) -> list[Record]:
    """The records, as far as they are browsed."""
    return [_read(Record, record) for record in records]


def _read(kind: type[Kind], value: Json) -> Kind:
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        raise ValueError(f"{place or 'the whole'}: {problem['msg']}") from None
