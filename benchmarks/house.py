"""The shape of the package: rooms, floors, arrows, circles, lines, and what one step runs through.

    python benchmarks/house.py [SRC]

SRC is the `src` folder of a checkout, this one's by default. Prints one table: today's figures and
those to keep to. A room is a folder or a loose file at the top of the package, `__init__.py` and
`__main__.py` too; floors are the longest chain of imports between rooms; an arrow is a room that
imports another; a circle is a group of modules that import each other; an import runs upward where
it asks for the package itself. A step is `Learner.gradients` of AdvProp on digits, the second of a
run, the model's own layers left out: the files of the functions that it calls, their lines, and how
often the file changes from one call to the next. Takes about ten seconds; nothing is asserted.
"""

from __future__ import annotations

import ast
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

PACKAGE = "advprop"
HERE = Path(__file__).parents[1] / "src"


def modules(source: Path) -> dict[str, Path]:
    """Every module by its dotted name without the package's, which itself is `__init__`."""
    root = source / PACKAGE
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        inner = parts[-1] == "__init__" and len(parts) > 1
        found[".".join(parts[:-1] if inner else parts)] = path
    return found


def imports(path: Path, known: Mapping[str, Path]) -> Iterator[str]:
    """The package's modules that a file imports, wherever in it; "" is the package itself."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if _within(name) in known else module for name in names]
        else:
            continue
        yield from (_within(name) for name in names if name.partition(".")[0] == PACKAGE)


def _within(name: str) -> str:
    return name.removeprefix(PACKAGE).removeprefix(".")


def longest_chain(arrows: Mapping[str, set[str]]) -> int:
    """Rooms on the longest way along `arrows`; rooms in a circle count once."""

    @cache
    def height(circle: frozenset[str]) -> int:
        below = {other for room in circle for other in arrows[room]} - circle
        return 1 + max((height(of[room]) for room in below), default=0)

    of = {room: group for group in circles(arrows) for room in group}
    return max(map(height, of.values()))


def circles(arrows: Mapping[str, set[str]]) -> list[frozenset[str]]:
    """Groups of what reaches each other, single ones too."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for other in arrows[waiting.pop()] - seen:
                seen.add(other)
                waiting.append(other)
        return seen

    reach = {name: reached(name) for name in arrows}
    return list(
        {
            frozenset({name, *(other for other in reach[name] if name in reach[other])})
            for name in arrows
        }
    )


def shape(source: Path) -> dict[str, str]:
    """What the files alone tell, by the rows of the table."""
    known = modules(source)
    edges = {name: {*imports(path, known)} for name, path in known.items()}
    upward = sum("" in found for found in edges.values())
    edges = {name: {other for other in found if other in known} for name, found in edges.items()}
    rooms = sorted({name.partition(".")[0] for name in known})
    loose = sum((source / PACKAGE / f"{room}.py").exists() for room in rooms)
    arrows: dict[str, set[str]] = {room: set() for room in rooms}
    for name, found in edges.items():
        room = name.partition(".")[0]
        arrows[room] |= {other.partition(".")[0] for other in found} - {room}
    turning = [circle for circle in circles(edges) if len(circle) > 1]
    paths = [*(source / PACKAGE).rglob("*.py")]
    return {
        "rooms at the top (loose files)": f"{len(rooms)} ({loose})",
        "floors": str(longest_chain(arrows)),
        "arrows between rooms": str(sum(map(len, arrows.values()))),
        "circles of modules": str(len(turning)),
        "imports that run upward": str(upward),
        "lines (files)": f"{sum(map(lines_of, paths)):,} ({len(paths)})",
    }


def lines_of(path: Path) -> int:
    """All of them, empty ones and comments too."""
    return len(path.read_text().splitlines())


def files_of_a_step(source: Path) -> list[str]:
    """The file of each call of ours within the second step of AdvProp, in order."""
    sys.path.insert(0, str(source))
    import torch

    from advprop import train
    from advprop.config.overrides import apply_overrides
    from advprop.recipes import RECIPES
    from advprop.training.learner import Learner

    torch.set_num_threads(1)
    changes = ["training.num_epochs=1", "training.warmup_epochs=0", "data.num_train=100"]
    config = apply_overrides(RECIPES["digits"].build().with_method("advprop"), changes)
    root, plain = f"{source / PACKAGE}/", Learner.gradients
    calls: list[list[str]] = []

    def seen(frame: Any, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event == "call" and name.startswith(root) and not name.startswith(f"{root}models/"):
            calls[-1].append(name.removeprefix(root))

    def traced(*arguments: Any, **named: Any) -> Any:
        calls.append([])
        sys.setprofile(seen)
        try:
            return plain(*arguments, **named)
        finally:
            sys.setprofile(None)

    Learner.gradients = traced  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            train(config, Path(folder) / "run", quiet=True)
    finally:
        Learner.gradients = plain  # type: ignore[method-assign]
    return calls[1]


def step(source: Path) -> dict[str, str]:
    """What a step runs through, by the rows of the table."""
    calls = files_of_a_step(source)
    lines = sum(lines_of(source / PACKAGE / name) for name in {*calls})
    changes = sum(one != other for one, other in pairwise(calls))
    return {
        "files within an AdvProp step (lines)": f"{len({*calls})} ({lines:,})",
        "changes of file within it": str(changes),
    }


WANTED = {
    "rooms at the top (loose files)": "24 (5)",
    "floors": "11",
    "arrows between rooms": "125",
    "circles of modules": "0",
    "imports that run upward": "0",
    "lines (files)": "19,500",
    "files within an AdvProp step (lines)": "12 (1,400)",
    "changes of file within it": "120",
}


def main() -> None:
    source = Path(sys.argv[1] if len(sys.argv) > 1 else HERE).resolve()
    found = shape(source) | step(source)
    print(f"{source}\n\n| | today | at most |\n| --- | ---: | ---: |")
    for name, wanted in WANTED.items():
        print(f"| {name} | {found[name]} | {wanted} |")


if __name__ == "__main__":
    main()
