"""Branch soups: what lies between the clean and the adversarial branch, without any training.

Rebuffi, Croce and Gowal (ICLR 2023, arXiv 2210.04886) trade clean accuracy for robustness by
interpolating class tokens. Here normalisation layers, whose statistics are estimated anew: of
AdvProp as it is, and of AdvProp whose branches own affine parameters only. Beside them what a soup
has to be held against: one mixed batch, which needs no branches.

    python experiments/soups.py
    python experiments/soups.py --quick

Time and result: docs/reproducing.md, experiment 13.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from branches import separate
from measures import CORRUPTED_IMAGES, CORRUPTION_SEVERITIES, corruption, each_branch
from settings import method
from study import Group, Options, base_config, main

import advprop
from advprop.config import RunConfig

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    both = method(base, "advprop")
    variants = {
        "vanilla": base,
        "mixed": method(base, "mixed"),
        "AdvProp": both,
        "AdvProp, affine only": separate(both, "affine", "joint"),
    }
    return [Group(name="soups", variants=variants)]


def soups(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Accuracies of the run's soups; on corruptions as the measure `corruption` has them."""
    if not config.method.build().auxiliary:
        return {}
    usual = advprop.evaluate(folder, mix=WEIGHTS, suites=["clean", "noise", "adversarial"])
    corrupted = advprop.evaluate(
        folder,
        mix=WEIGHTS,
        suites=["corruptions"],
        limit=CORRUPTED_IMAGES,
        settings=[f"evaluation.corruption_severities={list(CORRUPTION_SEVERITIES)}"],
    )
    keys = ("weight", "suite", "accuracy")
    points = [*usual["mix"], *corrupted["mix"]]
    return {"soups": [{key: point[key] for key in keys} for point in points]}


if __name__ == "__main__":
    extras = {"corruption": corruption, "branch": each_branch, "soups": soups}
    main("soups", plan, extras=extras)
