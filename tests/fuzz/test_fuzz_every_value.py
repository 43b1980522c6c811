"""Every value of every JSON file, exchanged for others: read, or refused with a remedy.

The files are those of an older version, whose runs have to be read for as long as there is this
format.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from damage import OTHER_FILES, attempt, cut

from advprop.comparisons.gathering import gather
from advprop.comparisons.sources import read_source
from advprop.config.overrides import read_config
from advprop.exports.export import load_export
from advprop.report.page import render
from advprop.runs.folder import _read_data_facts, read_result

BEFORE = Path(__file__).with_name("written_before.json")
RUN = "comparison/runs/advprop-seed0/"
REMEDY = re.compile(
    "again|delete|correct|put back|give|choose|take|leave|change|expected|loads|use the"
)
GONE = object()
VALUES = (
    *(GONE, None, True, -1, 10**30, float("nan"), "x", "\ud800\0", [None], {}),
    json.loads("[" * 60 + "]" * 60),
)


def page(path: Path) -> None:
    """A report of a run, a comparison or an evaluation, without plotly's megabytes."""
    text = render.render_report(*gather([read_source(path)]))
    assert not re.search(r"\b(NaN|nan|inf|Infinity)\b", text)


KINDS: dict[str, Callable[[Path], object]] = {
    "comparison/results.json": lambda place: page(place / "comparison"),
    "evaluation.json": lambda place: page(place / "evaluation.json"),
    RUN + "record.json": lambda place: page(place / RUN),
    RUN + "test.json": lambda place: page(place / RUN),
    RUN + "metrics.jsonl": lambda place: page(place / RUN),
    RUN + "result.json": lambda place: read_result(place / RUN) and page(place / RUN),
    RUN + "data.json": lambda place: _read_data_facts(place / RUN),
    RUN + "config.json": lambda place: (
        read_config(place / RUN / "config.json"),
        gather([read_source(place / RUN)]),
    ),
}


def places(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of a tree's values; of a list the first and the last stand for all."""
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree))
    for name, value in items if isinstance(tree, dict) else [*items[:1], *items[1:][-1:]]:
        yield (*path, name)
        if isinstance(value, dict | list):
            yield from places(value, (*path, name))


def damaged(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    tree = deepcopy(tree)
    *parents, last = path
    node = tree
    for name in parents:
        node = node[name]
    if value is GONE:
        del node[last]
    else:
        node[last] = value
    return tree


def text_of(tree: Any, name: str) -> str:
    lines = tree if name.endswith("l") else [tree]
    return "\n".join(json.dumps(line) for line in lines) + "\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the older version, and reports without what is the same in all of them."""
    monkeypatch.setattr(render, "_assets", lambda: dict.fromkeys(("css", "script", "plotly"), ""))
    for name, tree in json.loads(BEFORE.read_text()).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text_of(tree, name))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(read: Callable[[], object], path: Path, what: object) -> None:
    outcome = attempt(read)
    if outcome.message is not None:
        assert path.name in outcome.message, (what, outcome.message)
        assert REMEDY.search(outcome.message), (what, outcome.message)
        assert len(outcome.message) < 2000


@pytest.mark.parametrize("name", KINDS)
def test_any_value_may_be_another(name: str, place: Path) -> None:
    path, read = place / name, KINDS[name]
    read(place)
    content = path.read_bytes()
    tree = json.loads(BEFORE.read_text())[name]
    for number, where in enumerate(places(tree)):
        # of files that are drawn whatever they hold, each place meets some of the values
        for value in VALUES[number % 3 :: 3] if name.endswith("l") else VALUES:
            path.write_text(text_of(damaged(tree, where, value), name))
            check(lambda: read(place), path, (where, value))
    twice = content.replace(b"{", b'{"x": 1, "x": 2, ', 1)
    others = [change(content) for change in OTHER_FILES.values()]
    for other in [*others, *(cut(i, 8)(content) for i in range(1, 8)), twice]:
        path.write_bytes(other)
        check(lambda: read(place), path, other[:60])


def test_any_value_of_an_export_may_be_another(exported: Path) -> None:
    path = exported / "config.json"
    tree = json.loads(path.read_text())
    del tree["advprop"]["test"], tree["advprop"]["config"]
    for where in places(tree):
        for value in VALUES[:: 1 if "model_args" in where or "pretrained_cfg" in where else 4]:
            path.write_text(json.dumps(damaged(tree, where, value)))
            check(lambda: load_export(exported), exported, (where, value))
