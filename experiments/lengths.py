"""Where validation stops improving: each method at several lengths, then the best of them on test.

A short training flatters every method that costs more. So each method is trained for 1, 2 and 4
times the base length with seeds of its own, the length is chosen by validation accuracy, and only
that one is trained with the experiment's seeds and tested.

    python experiments/lengths.py
    python experiments/lengths.py --quick

Time and result: docs/reproducing.md, experiment 7.
"""

from __future__ import annotations

from itertools import product
from statistics import fmean

from measures import shift
from settings import longer, method
from study import Group, Options, base_config, folder_of, main

from advprop.comparisons.comparing import run_jobs
from advprop.comparisons.plan import Job
from advprop.config import RunConfig

METHODS = ("vanilla", "adversarial", "mixed", "advprop")
FACTORS = (1, 2, 4)
SEEDS_TO_CHOOSE = (100,)
NO_GAIN = 0.003  # a longer training has to be better by this much: less is chance


def chosen_lengths(
    configs: dict[str, RunConfig], name: str, options: Options
) -> dict[str, RunConfig]:
    """Each configuration for the shortest length that no longer one beats on validation."""
    factors = FACTORS[:2] if options.quick else FACTORS
    planned = []
    for kind, factor in product(configs, factors):
        config = longer(configs[kind], factor)
        planned += [
            Job(
                method=f"{kind} x{factor}",
                config=config.with_seed(seed),
                folder=folder_of(options.out, config, seed),
            )
            for seed in SEEDS_TO_CHOOSE
        ]
    folder = options.out / "lengths" / name / "choosing"
    rows = run_jobs(planned, folder, recipe=f"{name}: lengths", jobs=options.jobs)["runs"]
    chosen = {}
    for kind, config in configs.items():
        found = {
            factor: fmean(
                row["validation_accuracy"] for row in rows if row["method"] == f"{kind} x{factor}"
            )
            for factor in factors
        }
        best = min(f for f, value in found.items() if value >= max(found.values()) - NO_GAIN)
        shown = ", ".join(f"x{f} {value:.1%}" for f, value in found.items())
        print(f"  {name}, {kind}: validation {shown}; chosen x{best}", flush=True)
        chosen[kind] = longer(config, best)
    return chosen


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    configs = {kind: method(base, kind) for kind in METHODS}
    return [Group(name="each at its length", variants=chosen_lengths(configs, name, options))]


if __name__ == "__main__":
    main("lengths", plan, extras={"shift": shift})
