"""The colour and symbol of each method, the same in all figures and reports.

Colours are names of CSS variables (report.css has their values for light, dark and paper), so
that figures follow the reader's theme. Symbols differ too, so colour is never the only cue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from advprop.results.summary import group_of, kind_of


@dataclass(frozen=True)
class MethodStyle:
    """A method's colour, plotly marker symbol, description and `--method` (both may be empty)."""

    color: str
    symbol: str
    meaning: str = ""
    code: str = ""


Styles: TypeAlias = Mapping[str, MethodStyle]
"""The style of each method by its label."""
# the name in prose and tables, the colour and the symbol, by --method
KNOWN = {
    "vanilla": ("vanilla", "baseline", "circle-open"),
    "vanilla_equal_cost": ("vanilla at equal cost", "baseline-long", "circle"),
    "advprop": ("AdvProp", "method-1", "diamond"),
    "mixed": ("mixed training", "method-2", "square"),
    "adversarial": ("adversarial training", "method-3", "triangle-up"),
    "adversarial_then_clean": ("adversarial-then-clean training", "method-4", "triangle-down"),
    "fast": ("Fast AdvProp", "method-5", "cross"),
    "fine_grained": ("fine-grained AdvProp", "method-6", "x"),
    "advprop_lean": ("lean AdvProp", "method-7", "hourglass"),
    "pyramid": ("PyramidAT", "method-8", "hexagon"),
    "universal": ("universal PyramidAT", "method-4", "pentagon"),
    "sam": ("SAM", "method-5", "triangle-right"),
    "augmix": ("AugMix", "method-6", "triangle-left"),
    "maxup": ("MaxUp", "method-8", "diamond-tall"),
}
MEANINGS = {
    "vanilla": "clean images only",
    "vanilla_equal_cost": "vanilla, trained longer: as costly as the most expensive method",
    "advprop": "clean and adversarial images, each kind with its own normalisation layers",
    "mixed": "clean and adversarial images through the same layers",
    "adversarial": "adversarial images only",
    "adversarial_then_clean": "adversarial images first, clean images for the rest",
    "fast": "a share of each batch is adversarial; the attack's gradient also trains the weights",
    "fine_grained": "clean images and several other kinds, each with its own normalisation layers",
    "advprop_lean": "one pass per batch: a quarter has carried perturbations, the rest is clean",
    "pyramid": "clean images, and adversarial ones perturbed in patches of several sizes",
    "universal": "clean images, and the same images with one perturbation shared by all",
    "sam": "clean images; the gradient is taken at nearby weights with a higher loss",
    "augmix": "clean images, and mixtures of their augmentations, with consistent predictions",
    "maxup": "of several random views of each image, the one with the highest loss",
}
# Eight colours and seven symbols have no common factor, so pairs repeat after 56 methods.
SPARE_COLORS = tuple(f"method-{number}" for number in (7, 8, 1, 2, 3, 4, 5, 6))
SPARE_SYMBOLS = ("bowtie", "octagon", "diamond-wide", "star-square", "hash", "cross", "x")
GROUP_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down", *SPARE_SYMBOLS)


def titled(*parts: Iterable[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the entries with titles of methods in place of `--method` names.

    `parts` are runs, a summary, or other entries with a `method`. The first entry with a label
    determines its kind, which all get. What follows a comma in a label is kept, and labels whose
    titles would be equal stay unchanged.
    """
    every = [[{**entry, "method": str(entry["method"])} for entry in part] for part in parts]
    kinds: dict[str, str] = {}
    for entry in (entry for part in every for entry in part):
        kinds.setdefault(entry["method"], kind_of(entry))
    names = {label: _title(label, kind) for label, kind in kinds.items()}
    twice = [name for name, count in Counter(names.values()).items() if count > 1]
    return [
        [
            {**entry, "method": label if names[label] in twice else names[label], "kind": kind}
            for entry in part
            for label, kind in [(entry["method"], kinds[entry["method"]])]
        ]
        for part in every
    ]


def _title(label: str, kind: str) -> str:
    rest = label.removeprefix(kind)
    whole = label == kind or rest.startswith(",")
    return KNOWN[kind][0] + rest if kind in KNOWN and whole else label


def method_styles(
    methods: Sequence[str], entries: Iterable[Mapping[str, Any]] = ()
) -> dict[str, MethodStyle]:
    """Return a style for each label of `methods`; unknown ones get the spare styles in order.

    If `entries` (runs, or a summary) belong to several groups, the colour shows the training
    method and the symbol the group.
    """
    entry_of = {str(entry["method"]): entry for entry in entries}
    groups = list(dict.fromkeys(group_of(entry) for entry in entry_of.values()))
    kinds = {m: kind_of(entry_of[m]) if m in entry_of else m for m in methods}
    unknown = list(dict.fromkeys(kind for kind in kinds.values() if kind not in KNOWN))
    styles = {}
    for method, kind in kinds.items():
        style = _style(kind, unknown)
        if len(groups) > 1 and method in entry_of:
            place = groups.index(group_of(entry_of[method]))
            style = replace(style, symbol=GROUP_SYMBOLS[place % len(GROUP_SYMBOLS)])
        styles[method] = style
    return styles


def _style(kind: str, unknown: Sequence[str]) -> MethodStyle:
    if kind in KNOWN:
        _, color, symbol = KNOWN[kind]
        return MethodStyle(f"var(--{color})", symbol, MEANINGS[kind], code=kind)
    place = unknown.index(kind)
    color = SPARE_COLORS[place % len(SPARE_COLORS)]
    return MethodStyle(f"var(--{color})", SPARE_SYMBOLS[place % len(SPARE_SYMBOLS)])
