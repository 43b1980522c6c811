"""Recognise the split of a data set in the name of a folder or of a shard."""

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
    """The split that a name contains, and the rest of the name: "2017" in "train2017"."""

    split: str
    rest: str


def split_name(name: str) -> SplitName | None:
    """Return the split in `name`, in upper or lower case; None if no word of it names a split.

    A leading number, as in "1_train", is ignored.
    """
    name = name.casefold()
    if (word := _WORD.search(name)) is None:
        return None
    before, after = name[: word.start()].lstrip("0123456789 ._-"), name[word.end() :]
    return SplitName(_SPLIT_OF[word[1]], (before + after).strip(" ._-"))
