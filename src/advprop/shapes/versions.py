"""Further versions of an image that a method asks the loader for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class AugMixed:
    """A view that AugMix makes of the finished image: same crop, same flip (arXiv 1912.02781).

    `width` chains of `depth` operations each (None: one to three, at random) are mixed with each
    other, and then with the image, in shares drawn from Dirichlet and Beta distributions of
    `alpha`. `severity` bounds each operation's strength, which is at most 10. Raises ValueError for
    settings out of bounds.
    """

    severity: float = 3.0
    width: int = 3
    depth: int | None = None
    alpha: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.severity <= 10:
            raise ValueError(f"severity {self.severity}: give one above 0, and at most 10")
        if not (self.alpha > 0 and math.isfinite(self.alpha)):
            raise ValueError(f"alpha {self.alpha}: give a finite number above 0")
        for name, number in (("width", self.width), ("depth", self.depth)):
            if number is not None and not 1 <= number <= 100:
                raise ValueError(f"{name} {number}: give a whole number from 1 to 100")


@dataclass(frozen=True)
class Redrawn:
    """A view that the loader makes by another draw of the crop, the flip and the augmentation."""


Version: TypeAlias = AugMixed | Redrawn
"""How the loader makes a view of each image."""
