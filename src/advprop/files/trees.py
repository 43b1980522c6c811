"""Nested mappings, as JSON has them: flattened, and looked into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def leaves(
    tree: Any, *, separator: str = ".", lists: bool = False, path: str = ""
) -> Iterator[tuple[str, Any]]:
    """What nested mappings hold, each with its path; an empty mapping is held too.

    Lists are held whole; with `lists` what they hold is, at the list's own path.
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
    """What stands at `path`, None where there is nothing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
