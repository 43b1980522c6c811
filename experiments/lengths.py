"""Where validation stops improving: each method at several lengths, then the best of them on test.

A short training flatters every method that costs more. So each method is trained for 1, 2 and 4
times the base length with seeds of its own, the length is chosen by validation accuracy, and only
that one is trained with the experiment's seeds and tested.

    python experiments/lengths.py
    python experiments/lengths.py --quick

Time and result: docs/reproducing.md, experiment 7.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

from measures import shift
from settings import longer, method
from study import Group, Options, base_config, folder_of, main

import advprop
from advprop.config import RunConfig

METHODS = ("vanilla", "adversarial", "mixed", "advprop")
FACTORS = (1, 2, 4)
SEEDS_TO_CHOOSE = (100,)
NO_GAIN = 0.003  # a longer training has to be better by this much: less is chance


def chosen_length(config: RunConfig, options: Options) -> tuple[int, dict[int, float]]:
    """The shortest length that no longer one beats on validation, and what each reached."""
    found = dict(_validation(config, options))
    best = max(found.values())
    return min(factor for factor, value in found.items() if value >= best - NO_GAIN), found


def _validation(config: RunConfig, options: Options) -> Iterator[tuple[int, float]]:
    factors = FACTORS[:2] if options.quick else FACTORS
    for factor in factors:
        stretched = longer(config, factor)
        values = []
        for seed in SEEDS_TO_CHOOSE:
            folder: Path = folder_of(options.out, stretched, seed)
            result = advprop.train(stretched.with_seed(seed), folder, resume=True, quiet=True)
            values.append(result["validation_accuracy"])
        yield factor, fmean(values)


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    variants = {}
    for kind in METHODS:
        config = method(base, kind)
        factor, found = chosen_length(config, options)
        shown = ", ".join(f"x{f} {value:.1%}" for f, value in found.items())
        print(f"  {name}, {kind}: validation {shown}; chosen x{factor}", flush=True)
        variants[kind] = longer(config, factor)
    return [Group(name="each at its length", variants=variants)]


if __name__ == "__main__":
    main("lengths", plan, extras={"shift": shift})
