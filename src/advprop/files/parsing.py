"""Parse text and JSON from outside, flatten it, and make it printable."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, ValidationError

Number = Annotated[StrictInt | StrictFloat, Field(ge=-1e100, le=1e100)]
"""A finite number, small enough to be squared and summed without overflow."""
Share = Annotated[StrictInt | StrictFloat, Field(ge=0, le=1)]
Count = Annotated[StrictInt, Field(ge=0, le=10**15)]
PathText = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]

# characters that move a terminal's cursor, change its colours, or reverse the reading direction
_UNPRINTABLE = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]"
)
_PATH = re.compile(r"(?<![\w.~:/-])(?:/[^/\s:;,()'\"]+){2,}")
_DEEPEST = 100
_Part = TypeVar("_Part", bound="Part")


class Part(BaseModel):
    """An immutable piece of JSON; keys without a field are kept unchanged."""

    model_config = ConfigDict(
        frozen=True,
        extra="allow",
        allow_inf_nan=False,
        coerce_numbers_to_str=True,
        populate_by_name=True,
    )

    def plain(self) -> dict[str, Any]:
        """Return the JSON that this was read from, each value in the type of its field."""
        return self.model_dump(by_alias=True, exclude_unset=True)


def read_part(form: type[_Part], value: Mapping[str, Any]) -> _Part:
    """Return `value` as a `form`; raises ValueError, with the first fault and its place."""
    try:
        return form.model_validate(value)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise ValueError(f"{place or 'the whole'}: {message}") from None


def printable(text: str, *, lines: bool = True) -> str:
    """Return `text` with control characters escaped, and line breaks and tabs too unless `lines`.

    Names of files, classes and the like may hold characters that a terminal would obey.
    """
    text = _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
    return text if lines else text.replace("\n", "\\n").replace("\t", "\\t")


def first_line(error: BaseException) -> str:
    """Return the first line of the error's message, or the name of its class if that is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def without_paths(tree: Any) -> Any:
    """Return plain data with each absolute path shortened to its last name, for publishing."""
    if isinstance(tree, Mapping):
        return {key: without_paths(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [without_paths(value) for value in tree]
    if isinstance(tree, str):
        name = os.path.basename(tree.rstrip("/")) if os.path.isabs(tree) else ""
        return name or _PATH.sub(lambda path: os.path.basename(path[0]), tree)
    return tree


def decoded(content: bytes) -> str:
    """Return text from UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises ValueError if `content` is in none of them.
    """
    return content.decode(json.detect_encoding(content))


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises ValueError if it is invalid, nested too deeply, or has an infinite number or a key twice.
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


def leaves(
    tree: Any, *, separator: str = ".", lists: bool = False, path: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each leaf of nested mappings; an empty mapping is a leaf.

    A list is a leaf too; with `lists`, its items are leaves instead, with the path of the list.
    """
    if isinstance(tree, Mapping) and tree:
        below = [(f"{path}{separator}{name}" if path else str(name), tree[name]) for name in tree]
    elif lists and isinstance(tree, list | tuple):
        below = [(path, value) for value in tree]
    else:
        yield path, tree
        return
    for place, value in below:
        yield from leaves(value, separator=separator, lists=lists, path=place)


def at(tree: Any, *path: str) -> Any:
    """Return the value at `path`, or None if there is none."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
