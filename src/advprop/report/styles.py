"""One look for each method, the same in every figure and in every report.

Colours are names of CSS variables (report.css has their values for light, dark and paper), so
that figures follow the reader's theme. Shapes differ too: colour is never the only sign.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class MethodStyle:
    """Colour, plotly marker symbol, and one line of what the method is (may be empty)."""

    color: str
    symbol: str
    meaning: str = ""


KNOWN = {
    "vanilla": ("baseline", "circle-open", "clean images only"),
    "vanilla_equal_cost": (
        "baseline-long",
        "circle",
        "vanilla, trained longer: for the passes of the dearest method",
    ),
    "advprop": (
        "method-1",
        "diamond",
        "clean and adversarial images, each with normalisation layers of its own",
    ),
    "mixed": ("method-2", "square", "clean and adversarial images through the same layers"),
    "adversarial": ("method-3", "triangle-up", "adversarial images only"),
    "adversarial_then_clean": (
        "method-4",
        "triangle-down",
        "adversarial images first, clean images for the rest",
    ),
}
SPARE_COLORS = ("method-5", "method-6", "method-7", "method-8")
SPARE_SYMBOLS = ("cross", "x", "star", "hexagon", "pentagon", "bowtie", "hourglass")


def method_styles(methods: Sequence[str]) -> dict[str, MethodStyle]:
    """A style for each of `methods`; unknown ones take the spare colours in order."""
    styles = {}
    unknown = [method for method in methods if method not in KNOWN]
    for method in methods:
        if method in KNOWN:
            color, symbol, meaning = KNOWN[method]
        else:
            place = unknown.index(method)
            color = SPARE_COLORS[place % len(SPARE_COLORS)]
            symbol, meaning = SPARE_SYMBOLS[place % len(SPARE_SYMBOLS)], ""
        styles[method] = MethodStyle(color=f"var(--{color})", symbol=symbol, meaning=meaning)
    return styles
