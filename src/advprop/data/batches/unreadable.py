"""Count unreadable training images, and enforce their limit."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

from advprop.data.listing.classes import shortened
from advprop.shapes import Batch


def check_max_unreadable(share: float) -> None:
    """Raise ValueError unless `share` is at least 0 and below 1."""
    if not 0 <= share < 1:
        raise ValueError(
            f"max_unreadable={share:g}: the share of training images that may be unreadable, at "
            "least 0 (none may be) and below 1"
        )


@dataclass(kw_only=True)
class UnreadableTally:
    """Counts the distinct files of `num_images` that a training run could not read.

    It belongs to the training process for the whole run; loader workers only report. Each of
    `num_processes` is allowed an equal part of `max_share`, so that the total stays within it.
    """

    max_share: float
    num_images: int
    num_processes: int = 1
    found: dict[str, None] = field(default_factory=dict)  # a set in order of occurrence

    def __post_init__(self) -> None:
        check_max_unreadable(self.max_share)

    @property
    def count(self) -> int:
        """The number of files that could not be read so far."""
        return len(self.found)

    def add(self, batch: Batch) -> None:
        """Warn of each new file by name; raises ValueError, with all, if they exceed the share."""
        new = [problem for problem in batch.unreadable if problem not in self.found]
        self.found.update(dict.fromkeys(new))
        if self.count > self.max_share * self.num_images // self.num_processes:
            raise ValueError(
                f"{self.count} of {self.num_images} training images cannot be read, more than "
                f"max_unreadable={self.max_share:g} allows{self._each()}; repair or delete "
                "them:\n  " + shortened(self.found, separator="\n  ")
            )
        for problem in dict.fromkeys(new):
            warnings.warn(f"{problem}; another image stands in for it", stacklevel=2)

    def _each(self) -> str:
        return "" if self.num_processes == 1 else f" each of {self.num_processes} processes"
