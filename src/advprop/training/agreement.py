"""Checks that the processes of a run make together, so that none waits for one that has failed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object

_Finding = TypeVar("_Finding")
_SHOWN = 60  # the longest fact, in characters, that a message shows
_DIGEST = "sha256:"


def each(accelerator: Accelerator, judge: Callable[[], _Finding]) -> _Finding:
    """Return `judge()` of this process if no process fails; otherwise all processes end.

    A failure is an OSError, ValueError or ImportError. The first process that fails raises it; the
    others raise SystemExit with code 2, without a message, so that none waits for one that ended.
    """
    outcome: _Finding | Exception
    try:
        outcome = judge()
    except (OSError, ValueError, ImportError) as error:
        outcome = error
    refusals: list[bool] = gather_object([isinstance(outcome, Exception)])
    if any(refusals) and refusals.index(True) != accelerator.process_index:
        raise SystemExit(2)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def first(accelerator: Accelerator, judge: Callable[[], _Finding]) -> _Finding:
    """Return the first process's `judge()` in all processes; they end as in `each` if it fails."""
    found: list[Any] = [each(accelerator, judge if accelerator.is_main_process else lambda: None)]
    return cast("_Finding", broadcast_object_list(found)[0])


def check_same(accelerator: Accelerator, facts: Mapping[str, object], *, remedy: str) -> None:
    """Raise ValueError in the first process, and end the others, if their `facts` differ."""
    if accelerator.num_processes == 1:
        return
    told = {name: _short(value) for name, value in facts.items()}
    found: list[dict[str, str]] = gather_object([told])

    def judge() -> None:
        for rank, other in enumerate(found):
            names = [
                name for name in {**found[0], **other} if found[0].get(name) != other.get(name)
            ]
            if names:
                listed = "; ".join(
                    _told(name, found[0].get(name), other.get(name)) for name in names[:5]
                )
                more = f" and {len(names) - 5} more" if len(names) > 5 else ""
                raise ValueError(f"process {rank} differs from process 0: {listed}{more}: {remedy}")

    first(accelerator, judge)


def _short(value: object) -> str:
    """Return `value` as text, or a digest if it is long or bytes."""
    text = str(value)
    if len(text) <= _SHOWN and not isinstance(value, bytes):
        return text
    return _DIGEST + hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()


def _told(name: str, of_first: str | None, of_other: str | None) -> str:
    if any(value is not None and value.startswith(_DIGEST) for value in (of_first, of_other)):
        return f"other {name}"
    return f"{name} {of_other} instead of {of_first}"
