"""Which split of a data set the name of a folder or of a shard speaks of."""

from __future__ import annotations

import re
from typing import NamedTuple

SPLIT_NAMES = {
    "train": ("train", "training", "trainset", "trn"),
    "validation": ("val", "valid", "validation", "validate", "valset", "dev", "development"),
    "test": ("test", "testing", "testset", "tst", "eval", "evaluation"),
}
_SPLIT_OF = {word: split for split, words in SPLIT_NAMES.items() for word in words}
_WORD = re.compile(rf"(?<![^\W\d_])({'|'.join(_SPLIT_OF)})(?![^\W\d_])")


class SplitName(NamedTuple):
    """The split that a name speaks of, and what else it says: "2017" of "train2017"."""

    split: str
    rest: str


def split_name(name: str) -> SplitName | None:
    """What `name` says, whatever its case; None where no word of it is that of a split.

    A number in front, as in "1_train", says nothing.
    """
    name = name.casefold()
    if (word := _WORD.search(name)) is None:
        return None
    before, after = name[: word.start()].lstrip("0123456789 ._-"), name[word.end() :]
    return SplitName(_SPLIT_OF[word[1]], (before + after).strip(" ._-"))
