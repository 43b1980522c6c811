"""The method cards keep their word: code runs, commands are understood, defaults are true."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from advprop.config.methods import METHODS, method_config
from advprop.config.overrides import apply_overrides
from advprop.recipes.resolve import resolve_recipe

CARDS = Path(__file__).parents[2] / "docs" / "methods"
SECTIONS = [
    "What it does",
    "Formula",
    "Source",
    "Cost",
    "When to use it",
    "Defaults",
    "Pitfalls",
    "Command line",
    "Python",
    "Tested against",
    "Limiting case",
]
WRITTEN = {path.stem for path in CARDS.glob("*.md")}
every_card = pytest.mark.parametrize("name", [name for name in METHODS if name in WRITTEN])


def card(name: str) -> str:
    return (CARDS / f"{name}.md").read_text()


def test_one_card_a_method() -> None:
    missing = sorted(set(METHODS) - WRITTEN)
    if missing:
        pytest.fail(
            f"docs/methods/{missing[0]}.md is missing: copy docs/methods/sam.md, with its sections "
            f"{', '.join(SECTIONS)}",
            pytrace=False,
        )
    assert set(METHODS) == WRITTEN


@every_card
def test_sections(name: str) -> None:
    assert re.findall(r"^\*\*([A-Z][^*]+?)\.\*\*", card(name), re.MULTILINE) == SECTIONS
    assert card(name).startswith(f"# {name}\n")


@every_card
def test_code_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", card(name), re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, f"{name}.md", "exec"), {})
        assert type(method_config(name).build()).__name__ in block
        assert "nan" not in capsys.readouterr().out


@every_card
def test_commands_are_understood(name: str) -> None:
    commands = re.findall(r"^    (advprop train .+)$", card(name), re.MULTILINE)
    assert commands
    for command in commands:
        words = shlex.split(command)
        config = resolve_recipe(words[2])
        options = list(zip(words[3::2], words[4::2], strict=True))
        for option, value in options:
            assert option in ("--method", "--set")
            if option == "--method":
                config = config.with_method(value)
        config = apply_overrides(config, [value for option, value in options if option == "--set"])
        assert config.method.kind == name


@every_card
def test_defaults(name: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| .+ \|$", card(name), re.MULTILINE)
    stated = {setting: default.strip("`") for setting, default in rows}
    all_fields = dataclasses.fields(method_config(name).build())  # type: ignore[arg-type]
    fields = [field for field in all_fields if field.init]  # the rest is memory
    assert sorted(stated) == sorted(field.name for field in fields)
    for field in fields:
        if field.default is dataclasses.MISSING:
            assert stated[field.name] == "none in Python"
        else:
            assert stated[field.name].replace('"', "'") == repr(field.default)


@every_card
def test_links_and_files_exist(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", card(name)):
        assert (CARDS / target).is_file()
    for path in re.findall(r"`(tests/[^`]+)`", card(name)):
        assert (CARDS.parents[1] / path).exists()
