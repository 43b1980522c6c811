"""Flatten and query nested mappings such as those of JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(
    tree: Any, *, separator: str = ".", lists: bool = False, path: str = ""
) -> Iterator[tuple[str, Any]]:
    """Yield the path and value of each leaf of nested mappings; an empty mapping is a leaf.

    A list is a leaf too; with `lists`, its items are, each with the path of the list.
    """
    if isinstance(tree, Mapping) and tree:
        below = [(f"{path}{separator}{name}" if path else str(name), tree[name]) for name in tree]
    elif lists and isinstance(tree, list | tuple):
        below = [(path, value) for value in tree]
    else:
        yield path, tree
        return
    for place, value in below:
        yield from leaves(value, separator=separator, lists=lists, path=place)


def at(tree: Any, *path: str) -> Any:
    """Return the value at `path`, or None if there is none."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
