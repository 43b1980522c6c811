"""Damage to JSON: of its bytes, and of the values that it holds."""

from __future__ import annotations

import json
import random
from typing import Any

from damage import OTHER_FILES, Change, bit_flipped, bytes_replaced, cut

# what may stand where something else is expected
VALUES = (None, True, -1, 0, 0.5, 10**30, 1e30, "x", "", [], [1], [[]], {}, {"x": 1}, "\ud800\0")
BYTES: dict[str, Change] = {
    **OTHER_FILES,
    **{f"cut {i}": cut(i, 8) for i in range(1, 8)},
    **{f"bit {i}": bit_flipped(i) for i in range(12)},
    **{f"bytes {i}": bytes_replaced(i, 3) for i in range(6)},
}


def places(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in a tree of JSON."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for name, value in items:
        found.append((*path, name))
        if isinstance(value, dict | list):
            found += places(value, (*path, name))
    return found


def other_value(number: int) -> Change:
    """Another value somewhere in the tree, or none."""

    def change(content: bytes) -> bytes:
        generator = random.Random(number)
        tree = json.loads(content)
        *parents, last = generator.choice(places(tree))
        node = tree
        for name in parents:
            node = node[name]
        if generator.random() < 0.2:
            del node[last]
        else:
            node[last] = generator.choice(VALUES)
        return json.dumps(tree).encode()

    return change


TREES = {**BYTES, **{f"value {i}": other_value(i) for i in range(40)}}
