"""The JSON schema of the test results that the report shows.

Unknown keys are ignored. All suites, and most of their parts, are optional, except in `Tested`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import Field, model_validator

from advprop.files.parsing import Count, Number, Part, PathText, Share, read_part
from advprop.results.rows import Accuracies, Flag

Json = Mapping[str, Any]
Some = Annotated[Count, Field(gt=0)]


class ClassResult(Part):
    """The accuracy of one class in the clean suite."""

    name: str = Field(alias="class")
    accuracy: Share
    num_images: Count = 0


class Bin(Part):
    """The mean confidence and accuracy of the images with a confidence from `low` to `high`."""

    low: Number
    high: Number
    confidence: Share
    accuracy: Share
    num_images: Some


class Calibration(Part):
    """The expected calibration error and its bins."""

    ece: Number
    bins: tuple[Bin, ...] = ()


class Confusion(Part):
    """The number of images of a class that were predicted as another."""

    name: str = Field(alias="class")
    predicted: str
    count: Some


class Suite(Accuracies):
    """The fields that all suites have in common."""

    images: str | None = None
    num_images: Count = 0


class Clean(Suite):
    """The clean suite."""

    per_class: tuple[ClassResult, ...] = ()
    confusion: tuple[Confusion, ...] = ()
    calibration: Calibration | None = None


class CurvePoint(Part):
    """The accuracy under the attack of one epsilon, a point of a robustness curve."""

    threat_model: str
    epsilon: Annotated[Number, Field(ge=0, le=1e9)]
    accuracy: Share
    num_steps: Count | None = None
    restarts: Count | None = None


class Pair(Part):
    """The accuracy for a pair of attacked branch and evaluated branch."""

    attack_branch: str
    eval_branch: str
    accuracy: Share


class Adversarial(Suite):
    """The adversarial suite."""

    curve: tuple[CurvePoint, ...] = ()
    pairs: tuple[Pair, ...] = ()


class Corruption(Part):
    """The accuracies of one corruption, severity 1 first."""

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
    """The AutoAttack suite, with the accuracy after each of its attacks."""

    after: dict[str, Share] = Field(default_factory=dict)


class Suites(Part):
    """All suites by name; the report shows only the accuracy of those without a field here."""

    __pydantic_extra__: dict[str, Suite] = Field(init=False)

    clean: Clean = Clean()
    corruptions: Corruptions = Corruptions()
    adversarial: Adversarial = Adversarial()
    autoattack: AutoAttack = AutoAttack()


class Findings(Part):
    """The results of `advprop evaluate` for one run."""

    method: str = ""
    seed: str = ""
    branch: str = "clean"
    weights: str | None = None
    command: str | None = None
    versions: dict[str, str] | None = None
    suites: Suites = Suites()
    red_flags: tuple[Flag, ...] = ()


class Tested(Findings):
    """The results of a finished test, in which each suite has its accuracy and `images`."""

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
    """The contents of a run's `test.json`, which always includes the clean suite."""

    @model_validator(mode="after")
    def _clean(self) -> OwnTest:
        if "clean" not in self.suites.model_fields_set:
            raise ValueError("suites: clean is missing")
        return self


class Evaluation(Tested):
    """The contents of a file of `advprop evaluate --json`."""

    run: PathText


Found: TypeAlias = Mapping[str, Sequence[Findings]]
"""The findings of each method's runs."""


def read_findings(found: Iterable[Json]) -> dict[str, list[Findings]]:
    """Return each method's findings; raises ValueError that names a missing or wrong value."""
    by_method: dict[str, list[Findings]] = {}
    for item in found:
        parsed = read_part(Findings, item)
        by_method.setdefault(parsed.method, []).append(parsed)
    return by_method
