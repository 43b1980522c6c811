"""JSON from outside: any Unicode encoding, finite numbers, no key twice, not too deep."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from advprop.config.overrides import read_config
from advprop.data.shards.loading import _read_names
from advprop.files.json_files import read_json
from advprop.files.parsing import first_line, parse_json
from advprop.recipes.builtin import digits

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_files_of_users_are_read_in_any_unicode_encoding(encoding: str, tmp_path: Path) -> None:
    """Editors on Windows write byte order marks, and some of them UTF-16."""
    for name in ("config.json", "classes.json", "classes.txt"):
        text = {
            "config.json": digits().model_dump_json(),
            "classes.json": '["K\u00e4tzchen", "\u72ac"]',
            "classes.txt": "K\u00e4tzchen\n\u72ac\n",
        }[name]
        (tmp_path / name).write_bytes(text.encode(encoding))
    assert read_config(tmp_path / "config.json") == digits()
    assert _read_names(tmp_path / "classes.json") == ["K\u00e4tzchen", "\u72ac"]
    if not encoding.endswith(("le", "be")):  # JSON alone begins with a character that is known
        assert _read_names(tmp_path / "classes.txt") == ["K\u00e4tzchen", "\u72ac"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(*case, id=name)
        for name, case in {
            "twice": ('{"a": {"b": 1, "b": 2}}', "key 'b' twice"),
            "deep": ("[" * 150 + "]" * 150, "nested more than 100"),
            "too deep": ("[" * 100_000, "nested too deeply"),
            "infinite": ('{"a": 1e999}', "no finite number"),
            "latin": ('{"a": "caf\u00e9"}'.encode("latin-1"), "can't decode"),
            "half a mark": (codecs.BOM_UTF16_LE + b"{", "truncated"),
            "digits": ("9" * 5000, "integer string conversion"),
        }.items()
    ],
)
def test_json_is_refused(content: str | bytes, expected: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_json(content)
    path = tmp_path / "file.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"file\.json: damaged, not JSON .*; do this"):
        read_json(path, remedy="do this")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        pytest.param(RuntimeError("no room\nat 0x1\nat 0x2"), "no room", id="lines"),
        pytest.param(RuntimeError("\n  no room\n"), "no room", id="after an empty line"),
        pytest.param(AssertionError(), "AssertionError", id="nothing"),
    ],
)
def test_of_an_error_the_first_line_is_told(error: Exception, told: str) -> None:
    assert first_line(error) == told
