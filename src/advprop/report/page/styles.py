"""The colour and symbol of each method, the same in all figures and reports.

Colours are names of CSS variables (report.css has their values for light, dark and paper), so
that figures follow the reader's theme. Symbols differ too, so colour is never the only cue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from advprop.results.summary import group_of, kind_of


@dataclass(frozen=True, kw_only=True)
class MethodStyle:
    """Colour, plotly marker symbol, description of the method and its `--method` (may be empty)."""

    color: str
    symbol: str
    meaning: str = ""
    code: str = ""


KNOWN = {
    "vanilla": ("baseline", "circle-open", "clean images only"),
    "vanilla_equal_cost": (
        "baseline-long",
        "circle",
        "vanilla, trained longer: at the cost of the dearest method",
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
    "fast": (
        "method-5",
        "cross",
        "a share of each batch adversarial, its attack's gradient used twice",
    ),
    "fine_grained": (
        "method-6",
        "x",
        "clean images and several other kinds, each with normalisation layers of its own",
    ),
    "carried": (
        "method-7",
        "star",
        "clean images, and perturbed ones whose perturbation each epoch improves",
    ),
    "advprop_lean": (
        "method-7",
        "hourglass",
        "carried, in one pass over one batch: a quarter of it perturbed, the rest clean",
    ),
    "pyramid": (
        "method-8",
        "hexagon",
        "clean and adversarial images, perturbed on patches of several sizes",
    ),
    "universal": (
        "method-4",
        "pentagon",
        "clean images, and the same with one perturbation for all of them",
    ),
    "sam": (
        "method-5",
        "triangle-right",
        "clean images, learnt from at the weights nearby where their loss is highest",
    ),
    "augmix": (
        "method-6",
        "triangle-left",
        "clean images, and mixtures of augmentations of them with the same predictions",
    ),
    "maxup": (
        "method-8",
        "diamond-tall",
        "of several random views of each image that of the highest loss",
    ),
}
TITLES = {
    "vanilla": "vanilla",
    "vanilla_equal_cost": "vanilla at equal cost",
    "advprop": "AdvProp",
    "mixed": "mixed training",
    "adversarial": "adversarial training",
    "adversarial_then_clean": "adversarial-then-clean training",
    "fast": "Fast AdvProp",
    "fine_grained": "fine-grained AdvProp",
    "carried": "AdvProp with carried perturbations",
    "advprop_lean": "lean AdvProp",
    "pyramid": "PyramidAT",
    "universal": "universal PyramidAT",
    "sam": "SAM",
    "augmix": "AugMix",
    "maxup": "MaxUp",
}
"""The names of methods in prose and tables."""
# Eight colours and seven symbols have no common factor, so pairs repeat after 56 methods.
SPARE_COLORS = tuple(f"method-{number}" for number in (7, 8, 1, 2, 3, 4, 5, 6))
SPARE_SYMBOLS = ("bowtie", "octagon", "diamond-wide", "star-square", "hash", "cross", "x")
GROUP_SYMBOLS = ("circle", "diamond", "square", "triangle-up", "triangle-down", *SPARE_SYMBOLS)


def titled(*parts: Iterable[Mapping[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return the entries with titles of methods in place of `--method` names.

    `parts` are runs, a summary, or other entries with a `method`; the first entry with a label
    determines its kind. A suffix of a label after a comma is kept. Labels whose titles would be
    equal stay unchanged.
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
    return TITLES[kind] + rest if kind in TITLES and whole else label


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
        style = _known(kind) if kind in KNOWN else _spare(unknown.index(kind))
        if len(groups) > 1 and method in entry_of:
            place = groups.index(group_of(entry_of[method]))
            style = replace(style, symbol=GROUP_SYMBOLS[place % len(GROUP_SYMBOLS)])
        styles[method] = style
    return styles


def _known(kind: str) -> MethodStyle:
    color, symbol, meaning = KNOWN[kind]
    return MethodStyle(color=f"var(--{color})", symbol=symbol, meaning=meaning, code=kind)


def _spare(place: int) -> MethodStyle:
    color = SPARE_COLORS[place % len(SPARE_COLORS)]
    symbol = SPARE_SYMBOLS[place % len(SPARE_SYMBOLS)]
    return MethodStyle(color=f"var(--{color})", symbol=symbol)
