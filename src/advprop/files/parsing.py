"""Text and JSON that came from outside: in any Unicode encoding, finite, and of a given form."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

Number = Annotated[StrictInt | StrictFloat, Field(ge=-1e100, le=1e100)]
"""A finite number, small enough to be squared and summed up."""
Share = Annotated[StrictInt | StrictFloat, Field(ge=0, le=1)]
Count = Annotated[StrictInt, Field(ge=0, le=10**15)]
PathText = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]

# what moves a terminal's cursor, changes its colours, or turns the direction of reading
_UNPRINTABLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
_PATH = re.compile(r"(?<![\w.~:/-])(?:/[^/\s:;,()'\"]+){2,}")
_DEEPEST = 100
_Part = TypeVar("_Part", bound="Part")


class Part(BaseModel):
    """A piece of JSON that cannot be changed; keys without a field are kept as they are."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        populate_by_name=True,
    )

    def plain(self) -> dict[str, Any]:
        """The JSON that this was read from, each value in the type of its field."""
        return self.model_dump(by_alias=True, exclude_unset=True)


def read_part(form: type[_Part], value: Mapping[str, Any]) -> _Part:
    """`value` in the given form. ValueError: what is wrong, and where."""
    try:
        return form.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place or 'the whole'}: {message}") from None


def printable(text: str, *, lines: bool = True) -> str:
    """`text` with what a terminal would obey, or cannot show, as escapes; without `lines` on one.

    For names of files, classes and the like, which anybody may have chosen.
    """
    text = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text if lines else text.replace("\n", "\\n").replace("\t", "\\t")


def first_line(error: BaseException) -> str:
    """What `error` says, of many lines the first; the name of its kind where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def without_paths(tree: Any) -> Any:
    """Plain data with the last name alone of each absolute path in them, for other people."""
    if isinstance(tree, Mapping):
        return {key: without_paths(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_paths(value) for value in tree]
    if isinstance(tree, str):
        name = os.path.basename(tree.rstrip("/")) if os.path.isabs(tree) else ""
        return name or _PATH.sub(lambda path: os.path.basename(path[0]), tree)
    return tree


def decoded(content: bytes) -> str:
    """Text in UTF-8, UTF-16 or UTF-32, with a byte order mark or without; else ValueError."""
    return content.decode(json.detect_encoding(content))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    ValueError: it is none, has a number that is not finite or a key twice, or is nested too deeply.
    """
    try:
        value = json.loads(
            decoded(text) if isinstance(text, bytes) else text,
            parse_constant=_finite,
            parse_float=_finite,
            object_pairs_hook=_unique,
        )
        _check_depth(value, _DEEPEST)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} twice")
    return found


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)
