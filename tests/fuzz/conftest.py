"""A small finished run and its export, made once; copies of them to be damaged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from itertools import count
from pathlib import Path
from unittest import mock

import pytest

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.exporting import export

_spec = spec_from_file_location("cli_fixtures", Path(__file__).parents[1] / "cli" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_cli_fixtures = module_from_spec(_spec)
_spec.loader.exec_module(_cli_fixtures)
cli = _cli_fixtures.cli


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to be in, which has to stay empty: no file's code ran, nothing was left."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture(scope="session")
def config() -> RunConfig:
    settings = (
        "training.num_epochs=2",
        "data.num_train=40",
        "training.batch_size=20",
        "model.options.width=8",
    )
    return apply_overrides(digits().with_method("advprop"), settings)


@pytest.fixture(scope="session")
def whole_run(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "run"
    trained_by_a_fixed_clock(config, folder)
    return folder


def trained_by_a_fixed_clock(config: RunConfig, folder: Path) -> None:
    """Measured seconds would move every byte behind them, and damage would hit others each time."""
    with mock.patch("time.monotonic", side_effect=(0.25 * tick for tick in count())):
        train(config, folder, quiet=True)


@pytest.fixture(scope="session")
def whole_export(whole_run: Path) -> Path:
    return export(whole_run, whole_run.parent / "export")


@pytest.fixture
def copy_of(tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """Copies a folder, into one that does not outlive the test."""
    place = tmp_path / "copies"
    yield lambda folder: shutil.copytree(folder, place / folder.name)
    shutil.rmtree(place)


@pytest.fixture
def run(whole_run: Path, copy_of: Callable[[Path], Path]) -> Path:
    """A copy of the finished run."""
    return copy_of(whole_run)


@pytest.fixture
def exported(whole_export: Path, copy_of: Callable[[Path], Path]) -> Path:
    """A copy of its export."""
    return copy_of(whole_export)
