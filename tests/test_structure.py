"""The shape of the package: imports point down, files stay short, public names stay."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import advprop
from advprop.config.methods import REGISTRY

SOURCE = Path(advprop.__file__).parent
# the table of ARCHITECTURE.md, from its bottom row up: a module may import from rows below its own,
# and from its own folder
ROWS = [
    set(re.findall(r"`(\w+)`", folders))
    for folders in re.findall(
        r"^\| \d+ \| (.+?) \|", (SOURCE.parents[1] / "ARCHITECTURE.md").read_text(), re.MULTILINE
    )
][::-1]
FORBIDDEN = {
    "attacks": {"auxiliary", "models"},
    "data": {"auxiliary", "models", "attacks"},
    "methods": {"data", "models"},
    "training": {"evaluation", "auxiliary", "attacks", "data"},
    "evaluation": {"auxiliary", "methods", "models"},
    "report": {"auxiliary", "models", "data", "attacks", "methods", "training"},
}
# public names that are no methods
OTHER_NAMES = [
    "Attack",
    "Batch",
    "Classification",
    "Context",
    "GrowingSteps",
    "ImageStreams",
    "L2",
    "Linf",
    "Method",
    "MultiLabel",
    "PGD",
    "PyramidPGD",
    "RunConfig",
    "Standardized",
    "StepMetrics",
    "Task",
    "ThreatModel",
    "TrainingFacts",
    "add_auxiliary_norms",
    "add_auxiliary_tokens",
    "attack_mode",
    "branch_names",
    "branch_parameters",
    "build_model",
    "compare",
    "evaluate",
    "export",
    "fgsm",
    "given",
    "has_auxiliary_norms",
    "least_likely_class",
    "load_export",
    "load_run",
    "predict",
    "random_other_class",
    "remove_auxiliary_norms",
    "standardized",
    "train",
    "untargeted",
    "use_branch",
]


def part_of(module: str) -> str:
    return module.split(".")[1] if module.count(".") else module


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("advprop"):
            found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.startswith("advprop")}
    return found


def modules() -> list[Path]:
    return [path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem[:2] != "__"]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_down(path: Path) -> None:
    row_of = {part: row for row, parts in enumerate(ROWS) for part in parts}
    own = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    for module in imports(path):
        other = part_of(module)
        assert other == own or row_of[other] < row_of[own], f"{own} imports {other}"
        assert other not in FORBIDDEN.get(own, set()), f"{own} imports {other}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_and_functions_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 250
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 50, f"{node.name} has {length} lines"


def test_every_folder_has_a_row() -> None:
    parts = {path.relative_to(SOURCE).parts[0].removesuffix(".py") for path in modules()}
    assert sorted(part for row in ROWS for part in row) == sorted(parts)
    assert sum(path.suffix == ".py" for path in SOURCE.iterdir()) <= 5


def test_no_drawer_files() -> None:
    drawers = {"utils", "helpers", "common", "misc"}
    assert not drawers & {path.stem for path in SOURCE.rglob("*")}


def test_public_names() -> None:
    methods = [config.builds.__name__ for config in REGISTRY]
    assert sorted(advprop._MODULE_OF) == sorted([*methods, *OTHER_NAMES])


def test_public_names_resolve_and_are_typed() -> None:
    assert (SOURCE / "__init__.pyi").read_text().count("import ") == len(advprop._MODULE_OF)
    for name in advprop._MODULE_OF:
        value = getattr(advprop, name)
        assert inspect.getdoc(value), f"{name} has no docstring"
        assert name in dir(advprop)
    assert (SOURCE / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        advprop.trian  # noqa: B018


def test_submodules_do_not_shadow_public_names() -> None:
    """A submodule replaces what has its name in the package as soon as it is imported."""
    assert not {path.stem for path in SOURCE.iterdir()} & {*advprop._MODULE_OF}


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, advprop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_version_is_that_of_the_project() -> None:
    project = (SOURCE.parents[1] / "pyproject.toml").read_text()
    assert f'version = "{advprop.__version__}"' in project
