"""What the documents say, runs; their links lead somewhere; the site holds every page."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import advprop
from advprop.config.methods import METHODS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
HOOKS = runpy.run_path(str(DOCS / "hooks.py"))
PAGES = sorted(DOCS.rglob("*.md"))
AT_THE_TOP = [ROOT / f"{name}.md" for name in ("README", "ARCHITECTURE", "CONTRIBUTING")]
# the cards of methods have a suite of their own, tests/methods/test_method_cards.py
WITH_CODE = [page for page in [ROOT / "README.md", *PAGES] if page.parent.name != "methods"]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in WITH_CODE
    for number, block in enumerate(BLOCK.findall(page.read_text()), start=1)
]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


# Lightning's advice on workers, and what it and transformers do where there is no GPU
@pytest.mark.filterwarnings("ignore::UserWarning:lightning", "ignore:'pin_memory' argument")
@pytest.mark.filterwarnings(
    "ignore::FutureWarning:lightning", "ignore::DeprecationWarning:lightning"
)
@pytest.mark.parametrize("block", BLOCKS)
def test_code_runs_as_it_stands(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, object] = {}
    exec(block, scope)
    if "remove_auxiliary_norms" in block:
        assert not any("branches" in name for name, _ in scope["plain"].named_modules())


def test_the_readme_is_short_and_begins_with_code() -> None:
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 800
    assert text[: text.index("```python")].count("\n") < 25


def test_there_is_code_to_run() -> None:
    assert {"README-1", "loop-1", "python-1"} <= {str(block.id) for block in BLOCKS}


@pytest.mark.parametrize("page", [*AT_THE_TOP, *PAGES], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            linked = page.parent / path if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors_of(linked), target


def test_the_site_holds_every_page() -> None:
    site = HOOKS["on_config"](yaml.safe_load((ROOT / "mkdocs.yml").read_text()))
    listed = re.findall(r"[\w/]+\.md", str(site["nav"]))
    assert sorted(listed) == sorted(page.relative_to(DOCS).as_posix() for page in PAGES)
    assert site["strict"]


def test_the_reference_holds_every_public_name() -> None:
    whole = HOOKS["on_page_markdown"]((DOCS / "reference.md").read_text())
    found = re.findall(r"^::: advprop\.(\w+)$", whole, re.MULTILINE)
    assert sorted(found) == sorted(advprop._MODULE_OF)
    page = (DOCS / "python.md").read_text()
    table = set(re.findall(r"`(\w+)`", page[: page.index("## A run")]))
    assert {*found} - {config.builds.__name__ for config in METHODS.values()} <= table


@pytest.mark.full
def test_the_site_is_built(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    assert "add_auxiliary_norms" in (tmp_path / "reference" / "index.html").read_text()
