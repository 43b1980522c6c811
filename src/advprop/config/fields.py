"""The base classes and field types of all configurations."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from advprop.files.parsing import leaves

LARGEST = 10**9
"""The upper bound of all numeric settings except seeds."""
Built = TypeVar("Built")


class Config(BaseModel):
    """A frozen configuration that rejects unknown names and numbers beyond `LARGEST`.

    `removed` maps settings of earlier versions to the values at which they had no effect. Saved
    configurations may still contain them: with that value they are dropped, else refused with the
    name of a commit that has them, `removed_after`.

    `places` names the fields that hold paths. Since files may move, configurations are compared
    without paths; the contents of the files are compared instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    places: ClassVar[tuple[str, ...]] = ()
    removed: ClassVar[Mapping[str, object]] = {}
    removed_after: ClassVar[str] = "5ebac19"

    @model_validator(mode="before")
    @classmethod
    def _not_beyond(cls, settings: Any) -> Any:
        for path, number in leaves(settings, lists=True):
            is_free = not isinstance(number, int | float) or path.endswith("seed")
            if not is_free and not abs(number) <= LARGEST:
                shown = str(number)
                shown = shown if len(shown) < 30 else f"{shown[:20]}... ({len(shown)} digits)"
                raise ValueError(f"{path} {shown}: give a number of at most {LARGEST:,}")
        return settings

    @model_validator(mode="before")
    @classmethod
    def _without_removed(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        for name, idle in cls.removed.items():
            if settings.get(name, idle) != idle:
                what = f"{name} {settings[name]!r}"
                raise ValueError(removed_text(what, repr(idle), cls.removed_after))
        return {name: value for name, value in settings.items() if name not in cls.removed}

    def absolute(self) -> Self:
        """Return a copy with absolute places."""
        given = {name: getattr(self, name) for name in self.places}
        found = {name: _absolute(place) for name, place in given.items() if place is not None}
        return self.model_copy(update=found)

    def without_places(self) -> Self:
        """Return a copy without places, which can be published."""
        return self.model_copy(update=dict.fromkeys(self.places))


class Buildable(Config, Generic[Built]):
    """A configuration that builds an object, passing its fields as arguments of the same names.

    A subclass sets `builds` to the object's class; fields that are `Buildable` are built first, and
    `kind`, which distinguishes the classes, is not passed. The object checks its arguments, so
    every configuration builds it once on validation.
    """

    builds: ClassVar[Callable[..., Any]]

    @model_validator(mode="after")
    def _valid(self) -> Self:
        self.build()
        return self

    def settings(self) -> dict[str, Any]:
        """Return the arguments of `builds` by name."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "kind"}
        return {n: v.build() if isinstance(v, Buildable) else v for n, v in values.items()}

    def build(self) -> Built:
        """Return the object; raises ValueError for settings out of bounds."""
        built: Built = self.builds(**self.settings())
        return built


def _absolute(place: Path | str) -> Path | str:
    if isinstance(place, Path):
        return place.absolute()
    return place if "://" in place else os.path.abspath(place)


def _not_empty(place: object) -> object:
    if place == "":
        raise ValueError("no path given; the current folder is .")
    return place


Place = Annotated[Path, BeforeValidator(_not_empty), AfterValidator(Path.expanduser)]
"""A path of a file or folder; "~" is expanded."""
PlacePattern = Annotated[str, BeforeValidator(_not_empty), AfterValidator(os.path.expanduser)]
"""A path or pattern of several files; "~" is expanded."""


def removed_text(what: str, instead: str, commit: str) -> str:
    """Return the error message for something that only earlier versions had, as `commit`."""
    return (
        f"{what}: this was removed, for the reasons in docs/reproducing.md; use {instead}, or "
        f"commit {commit} of advprop, which has it"
    )


def parse_fraction(value: object) -> object:
    """Return text such as "4/255" as a number, and any other value as it is.

    Raises ValueError for a fraction that is no number.
    """
    if isinstance(value, str) and value.count("/") == 1:
        numerator, denominator = value.split("/")
        try:
            return float(numerator) / float(denominator)
        except (ValueError, ZeroDivisionError):
            raise ValueError("write a fraction as in 4/255") from None
    return value


Fraction = Annotated[float, BeforeValidator(parse_fraction)]


def parse_list(value: object) -> object:
    """Return "1/255,2/255" as a list, a number as a list of one, and other values as they are."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


Fractions = Annotated[tuple[Fraction, ...], BeforeValidator(parse_list)]
