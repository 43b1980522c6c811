"""What the suites found, checked and typed: the report's view of the JSON.

Keys that the report does not draw are passed over; all parts may be missing, but in a file of
`Tested`. A value of the wrong kind is a ValueError that says where.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, Field, field_validator, model_validator

from advprop.files.parsing import Count, Number, Part, PathText, Share, read_part
from advprop.results.rows import Accuracies, Flag

Json = Mapping[str, Any]
Some = Annotated[Count, Field(gt=0)]


def _drawable(epsilon: float) -> float:
    if 0 < epsilon < 1e-12:
        raise ValueError("0, or a number of at least 1e-12, is expected")
    return epsilon


Epsilon = Annotated[Number, Field(ge=0, le=1e9), AfterValidator(_drawable)]


class ClassResult(Part):
    """One class of the clean suite."""

    name: str = Field(alias="class")
    accuracy: Share
    num_images: Count = 0


class Bin(Part):
    """Images whose confidence lies between `low` and `high`."""

    low: Number
    high: Number
    confidence: Share
    accuracy: Share
    num_images: Some


class Calibration(Part):
    """Expected calibration error and the bins it is made of."""

    ece: Number
    bins: tuple[Bin, ...] = ()


class Confusion(Part):
    """How many images of a class were taken for another."""

    name: str = Field(alias="class")
    predicted: str
    count: Some


class Suite(Accuracies):
    """What every suite says."""

    images: str | None = None
    num_images: Count = 0


class Clean(Suite):
    """The clean suite."""

    per_class: tuple[ClassResult, ...] = ()
    confusion: tuple[Confusion, ...] = ()
    calibration: Calibration | None = None


class CurvePoint(Part):
    """Accuracy under one attack of a series."""

    threat_model: str
    epsilon: Epsilon
    accuracy: Share
    num_steps: Count | None = None
    restarts: Count | None = None


class Pair(Part):
    """Accuracy where one branch is attacked and one evaluated."""

    attack_branch: str
    eval_branch: str
    accuracy: Share


class Adversarial(Suite):
    """The adversarial suite."""

    curve: tuple[CurvePoint, ...] = ()
    pairs: tuple[Pair, ...] = ()


class Corruption(Part):
    """Accuracies of one corruption, severity 1 first."""

    accuracy: tuple[Share, ...] = ()
    mean_error: Number | None = None
    ce: Number | None = None


class Corruptions(Suite):
    """The corruptions suite."""

    by_corruption: dict[str, Corruption] = Field(default_factory=dict)
    extra: dict[str, Corruption] = Field(default_factory=dict)
    mce: Number | None = None
    made: str | None = None


class AutoAttack(Suite):
    """The AutoAttack suite: accuracy that is left after each of its attacks."""

    after: dict[str, Share] = Field(default_factory=dict)


class Suites(Part):
    """All suites by name; the report draws more of these than an accuracy."""

    __pydantic_extra__: dict[str, Suite] = Field(init=False)

    clean: Clean = Clean()
    corruptions: Corruptions = Corruptions()
    adversarial: Adversarial = Adversarial()
    autoattack: AutoAttack = AutoAttack()


class SoupPoint(Part):
    """Accuracy of one branch soup in one suite."""

    branch: str
    weight: Share
    suite: str
    accuracy: Share
    ci95: tuple[Number, Number] | None = None


class Findings(Part):
    """What `advprop evaluate` found of one run."""

    method: str = ""
    seed: str = ""
    branch: str = "clean"
    weights: str | None = None
    command: str | None = None
    versions: dict[str, str] | None = None
    suites: Suites = Suites()
    red_flags: tuple[Flag, ...] = ()
    mix: tuple[SoupPoint, ...] = ()

    @field_validator("suites", "red_flags", mode="before")
    @classmethod
    def _missing(cls, value: Any) -> Any:
        return {} if value is None else value


class Tested(Findings):
    """The same of a finished test: each suite has its accuracy, and says of what images."""

    suites: Suites

    @model_validator(mode="after")
    def _whole(self) -> Tested:
        for name in self.suites.model_fields_set:
            suite = getattr(self.suites, name)
            for key in (f"{name}_accuracy", "images"):
                if getattr(suite, key, None) is None:
                    raise ValueError(f"suites.{name}: {key} is missing")
        return self


class OwnTest(Tested):
    """`test.json` of a run, in which the clean suite is never left out."""

    @model_validator(mode="after")
    def _clean(self) -> OwnTest:
        if "clean" not in self.suites.model_fields_set:
            raise ValueError("suites: clean is missing")
        return self


class Evaluation(Tested):
    """What `advprop evaluate --json` writes."""

    run: PathText


def read_findings(found: Iterable[Json]) -> dict[str, list[Findings]]:
    """Findings of each method."""
    by_method: dict[str, list[Findings]] = {}
    for item in found:
        parsed = read_part(Findings, item)
        by_method.setdefault(parsed.method, []).append(parsed)
    return by_method
