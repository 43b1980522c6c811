"""What all parts of a configuration have in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Config(BaseModel):
    """Frozen, finite, and without unknown names."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


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
