"""What the README says, runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import advprop

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_as_it_stands() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    scope: dict[str, object] = {}
    exec(example, scope)
    plain = scope["plain"]
    assert not any("branches" in name for name, _ in plain.named_modules())
    assert scope["metrics"].kinds.keys() == {"clean", "adversarial"}


@pytest.mark.parametrize("page", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", (ROOT / page).read_text()):
        if not target.startswith("http"):
            assert (ROOT / target).exists(), target


def test_the_examples_of_the_python_page_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "python.md").read_text()
    examples = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(examples) == 4
    for example in examples:
        exec(example, {})
    assert (tmp_path / "exported" / "model.safetensors").is_file()
    names = set(re.findall(r"`(\w+)`", page[: page.index("## A run")]))
    assert set(advprop._MODULE_OF) <= names
