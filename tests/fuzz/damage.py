"""Damage to files, the same in every session, and what may come of it."""

from __future__ import annotations

import io
import os
import pickle
import random
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

Change = Callable[[bytes], bytes]


class Payload:
    """Unpickled without care, it makes a folder where the process is; fixture `here` looks."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("owned",)


def pickled(value: object) -> bytes:
    """A torch file."""
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def bit_flipped(number: int) -> Change:
    """One bit is another, anywhere in the file."""

    def change(content: bytes) -> bytes:
        place = random.Random(number).randrange(8 * len(content))
        changed = bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        return bytes(changed)

    return change


def bytes_replaced(number: int, length: int = 8) -> Change:
    """Some bytes in a row are others, anywhere in the file."""

    def change(content: bytes) -> bytes:
        generator = random.Random(number)
        place = generator.randrange(max(1, len(content) - length))
        return content[:place] + generator.randbytes(length) + content[place + length :]

    return change


def cut(numerator: int, denominator: int) -> Change:
    """The file ends early."""
    return lambda content: content[: len(content) * numerator // denominator]


def changes(*, cuts: int, flips: int, replacements: int) -> dict[str, Change]:
    """So much damage of each kind by name, and what can happen to a file only once."""
    return {
        **OTHER_FILES,
        **{f"cut {i} of {cuts}": cut(i, cuts) for i in range(1, cuts)},
        **{f"bit {i}": bit_flipped(i) for i in range(flips)},
        **{f"bytes {i}": bytes_replaced(i) for i in range(replacements)},
        "last byte missing": lambda content: content[:-1],
        "first byte missing": lambda content: content[1:],
        "second half zero": lambda content: cut(1, 2)(content).ljust(len(content), b"\0"),
        "first block zero": lambda content: bytes(512) + content[512:],
    }


def cases(names: Iterable[Any], *, quick: int) -> list[Any]:
    """Parameters of a test, of which so many, spread evenly, belong to `make test`."""
    listed = list(names)
    chosen = {number * len(listed) // quick for number in range(quick)}
    return [
        pytest.param(name, marks=() if number in chosen else pytest.mark.full)
        for number, name in enumerate(listed)
    ]


OTHER_FILES: dict[str, Change] = {
    "empty": lambda content: b"",
    "one byte": lambda content: content[:1],
    "all zero": lambda content: bytes(len(content)),
    "text": lambda content: b"nothing of the kind\n",
    "not UTF-8": lambda content: b"\xff\xfe\x00\x80" * 50,
    "number": lambda content: b"1",
    "null": lambda content: b"null",
    "list": lambda content: b"[[], {}]",
    "string": lambda content: b'"text"',
    "empty object": lambda content: b"{}",
    "deep": lambda content: b"[" * 100_000,
    "long number": lambda content: b"9" * 10_000,
    "pickle with a payload": lambda content: pickle.dumps(Payload()),
    "old pickle with a payload": lambda content: pickle.dumps(Payload(), protocol=0),
    "torch file with a payload": lambda content: pickled({"format": 1, "model": Payload()}),
    "other torch file": lambda content: pickled({"weight": torch.zeros(2)}),
}


@dataclass(frozen=True)
class Outcome:
    """What a call returned, or the message it refused with."""

    result: Any = None
    message: str | None = None


def attempt(call: Callable[[], Any]) -> Outcome:
    """The outcome of `call`; any exception that is no message to a user goes through."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return Outcome(result=call())
        except (ValueError, OSError, ImportError) as error:
            return Outcome(message=str(error))


def damage(path: Path, change: Change) -> None:
    """Change a file's contents in its place."""
    path.write_bytes(change(path.read_bytes()))


def assert_named(message: str, path: Path) -> None:
    """A message has the name of the file or of its folder, and is no exception's bare words."""
    assert path.name in message or str(path.parent) in message, message
    assert len(message) < 2000
    assert "Traceback" not in message
