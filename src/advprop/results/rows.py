"""The JSON schemas of runs: `result.json`, the rows of `results.json`, and red flags."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from advprop.files.parsing import Count, Number, Part, PathText, Share

Cost = Annotated[Number, Field(ge=0)]
_SHARE = TypeAdapter(Share)


class Flag(Part):
    """A red flag; old files store only its message, as a string."""

    flag: str = ""
    suite: str | None = None
    message: str
    page: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_sentence(cls, value: Any) -> Any:
        return {"message": value} if isinstance(value, str) else value


class Accuracies(Part):
    """Base of rows with any number of keys NAME_accuracy, each a fraction from 0 to 1 or null."""

    @model_validator(mode="after")
    def _fractions(self) -> Accuracies:
        for name, value in {**self.__dict__, **(self.model_extra or {})}.items():
            if name.endswith("_accuracy") and value is not None:
                try:
                    _SHARE.validate_python(value)
                except ValidationError:
                    raise ValueError(f"{name} {value!r:.50}: a fraction from 0 to 1") from None
        return self


class Row(Accuracies):
    """One of the `runs` in a comparison's `results.json`."""

    method: str
    seed: Count
    kind: str | None = None
    group: str | None = None
    folder: PathText
    tested_on: str | None = None
    epochs: Cost | None = None
    passes_per_image: Cost | None = None
    total_passes: Cost | None = None
    train_seconds: Cost | None = None
    red_flags: tuple[Flag, ...] | None = None
    data_found: dict[str, Any] | None = None


class Result(Accuracies):
    """The contents of `result.json`, written for a finished run."""

    recipe: str
    method: str
    seed: Count
    epochs: Count
    passes_per_image: Cost
    total_passes: Cost
    train_seconds: Cost
    validation_accuracy: Share
    versions: dict[str, str]


class Failed(Part):
    """A run of a comparison that did not finish."""

    method: str
    seed: Count
    error: str


class Trial(Part):
    """A training with some settings varied, for choosing them on validation images."""

    method: str
    settings: dict[str, Any]
    chosen: bool
    folder: PathText
    validation_accuracy: Share | None = None
    error: str | None = None

    @property
    def told(self) -> str:
        """Return the varied settings in words."""
        return ", ".join(f"{path}={value}" for path, value in self.settings.items())


class Results(Part):
    """The contents of a comparison's `results.json`; readers recompute its summary from `runs`."""

    recipe: str | None = None
    command: str
    planned_runs: Count
    runs: tuple[Row, ...]
    failed: tuple[Failed, ...]
    versions: dict[str, str] | None = None
    step_costs: dict[str, Cost] = Field(default_factory=dict)
    trials: tuple[Trial, ...] = ()
    summary: tuple[dict[str, Any], ...] = Field(default=())
