"""What the package imports is declared, and what decodes untrusted files is recent."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import advprop

SOURCE = Path(advprop.__file__).parent
PROJECT = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", name)[0]).lower()


def imported() -> dict[str, set[str]]:
    """Foreign packages, and the modules that import them."""
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                found.setdefault(name.split(".")[0], set()).add(str(path.relative_to(SOURCE)))
    return {
        name: where
        for name, where in found.items()
        if name not in sys.stdlib_module_names and name != "advprop"
    }


def test_every_import_is_declared() -> None:
    extras = PROJECT["optional-dependencies"]
    theirs = {extra for extra in extras if extra not in ("test", "lint", "bench")}
    declared = {*PROJECT["dependencies"], *(name for extra in theirs for name in extras[extra])}
    known = {plain(name) for name in declared}
    distributions = packages_distributions()
    missing = {
        name: sorted(where)
        for name, where in imported().items()
        if not known & {plain(distribution) for distribution in distributions.get(name, [name])}
    }
    assert not missing


def test_pillow_is_recent() -> None:
    """It decodes files of strangers."""
    (pillow,) = (name for name in PROJECT["dependencies"] if plain(name) == "pillow")
    assert tuple(map(int, pillow.split(">=")[1].split(".")[:2])) >= (12, 2)


def test_a_name_that_is_declared_nowhere_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PROJECT, "dependencies", PROJECT["dependencies"][1:])
    with pytest.raises(AssertionError):
        test_every_import_is_declared()
