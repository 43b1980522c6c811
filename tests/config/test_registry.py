"""A method that is registered stands everywhere that methods are listed."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path

import pytest

from advprop.config.methods import METHODS, REGISTRY, method_config
from advprop.recipes.images import from_scratch
from advprop.report.page.styles import method_styles

TESTS = Path(__file__).parents[1]
every_method = pytest.mark.parametrize("name", METHODS)
# the method has several attacks by name; the configuration has that of one branch for itself
ONLY_IN_ONE = {"fine_grained": {"attack", "noise"}}


@pytest.fixture(autouse=True)
def _test_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("methods", "training"):
        monkeypatch.syspath_prepend(str(TESTS / folder))


def test_every_method_passes_the_suites_that_are_for_all() -> None:
    import distributed_steps
    import method_cases
    import test_compilations
    import test_resume

    suites = (method_cases, distributed_steps, test_compilations)
    for cases in [*(module.CASES for module in suites), test_resume.METHODS]:
        assert set(METHODS) <= {*cases}


def test_names_are_those_of_the_configurations() -> None:
    assert [config.name() for config in REGISTRY] == list(METHODS)


@every_method
def test_it_has_a_file_and_tests(name: str) -> None:
    """Its card is tested in `tests/methods/test_method_cards.py`."""
    method = type(method_config(name).build())
    module = sys.modules[method.__module__]
    file = Path(inspect.getfile(module))
    assert file.stem == name, f"rename {file.name} to {name}.py, after the method's `kind`"
    tests = (path.read_text() for path in (TESTS / "methods").glob("test_*.py"))
    made = any(f"{method.__name__}(" in text for text in tests)
    assert made, f"no test in tests/methods makes a {method.__name__}: test its limiting case"


def test_the_report_tells_all_methods_apart() -> None:
    looks = {(style.color, style.symbol) for style in method_styles(list(METHODS)).values()}
    assert len(looks) == len(METHODS)


@every_method
def test_a_configuration_survives_its_file(name: str) -> None:
    config = from_scratch().with_method(name)
    assert config.method.kind == name
    assert type(config).model_validate_json(config.model_dump_json()) == config


@every_method
def test_fields_of_a_configuration_are_those_of_its_method(name: str) -> None:
    config = method_config(name)
    method = config.build()
    assert config.builds is type(method)
    given, fields = config.settings(), dataclasses.fields(method)  # type: ignore[arg-type]
    defaults = {field.name: field.default for field in fields if field.init}  # the rest is memory
    assert given.keys() ^ defaults.keys() == ONLY_IN_ONE.get(name, set())
    for setting, default in defaults.items():
        if default is not dataclasses.MISSING:
            assert given[setting] == default, setting
