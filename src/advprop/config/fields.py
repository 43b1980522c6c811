"""What all parts of a configuration have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Generic, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, model_validator

from advprop.files.trees import leaves

LARGEST = 10**9
"""No setting is larger, but for seeds."""
_LAST_WITH_REMOVED = "5ebac19"
Built = TypeVar("Built")


class Config(BaseModel):
    """Frozen, finite, without unknown names and without numbers beyond `LARGEST`.

    `removed` has the settings of earlier versions with the values at which they did nothing. Saved
    configurations still name them: at these values they are dropped, at others refused.

    `places` names the fields that say where something lies. A place identifies nothing: what lies
    there may be moved, and is compared instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    places: ClassVar[tuple[str, ...]] = ()
    removed: ClassVar[Mapping[str, object]] = {}

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
                raise ValueError(removed_text(f"{name} {settings[name]!r}", repr(idle)))
        return {name: value for name, value in settings.items() if name not in cls.removed}

    def absolute(self) -> Self:
        """The same with absolute places."""
        given = {name: getattr(self, name) for name in self.places}
        found = {name: _absolute(place) for name, place in given.items() if place is not None}
        return self.model_copy(update=found)

    def without_places(self) -> Self:
        """The same for other people, who are not told where anything lies."""
        return self.model_copy(update=dict.fromkeys(self.places))


class Buildable(Config, Generic[Built]):
    """A configuration that builds something of its fields, which bear the names of its arguments.

    A subclass names in `builds` what is built; fields that are parts themselves are built first,
    and `kind` only tells classes apart. Bounds are checked by what is built, which every
    configuration does on the spot.
    """

    builds: ClassVar[Callable[..., Any]]

    @model_validator(mode="after")
    def _valid(self) -> Self:
        self.build()
        return self

    def settings(self) -> dict[str, Any]:
        """What it is built of, by name."""
        values = {name: getattr(self, name) for name in type(self).model_fields if name != "kind"}
        return {n: v.build() if isinstance(v, Buildable) else v for n, v in values.items()}

    def build(self) -> Built:
        """Build it; raises ValueError for settings out of bounds."""
        built: Built = self.builds(**self.settings())
        return built


def _absolute(place: Path | str) -> Path | str:
    if isinstance(place, Path):
        return place.absolute()
    return place if "://" in place else os.path.abspath(place)


Place = Annotated[Path, AfterValidator(Path.expanduser)]
"""A file or folder; "~" is the user's home."""
PlacePattern = Annotated[str, AfterValidator(os.path.expanduser)]
"""The same, where it may stand for several."""


def removed_text(what: str, instead: str) -> str:
    """The message for a setting that an earlier version had."""
    return (
        f"{what}: this was removed, for the reasons in docs/reproducing.md; use {instead}, or "
        f"commit {_LAST_WITH_REMOVED} of advprop, which has it"
    )


def parse_fraction(value: object) -> object:
    """Read "4/255" as a number; leave everything else to the field's own validation."""
    if isinstance(value, str) and value.count("/") == 1:
        numerator, denominator = value.split("/")
        try:
            return float(numerator) / float(denominator)
        except (ValueError, ZeroDivisionError):
            raise ValueError("write a fraction as in 4/255") from None
    return value


Fraction = Annotated[float, BeforeValidator(parse_fraction)]


def parse_list(value: object) -> object:
    """Read "1/255,2/255" as a list, and one number as a list of it; leave all else."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [value] if isinstance(value, int | float) else value


Fractions = Annotated[tuple[Fraction, ...], BeforeValidator(parse_list)]
