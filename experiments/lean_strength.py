"""`advprop_lean` in exactly vanilla's time: which epsilon, and is it ahead?

The strength is chosen on validation images, with a seed of its own. Then vanilla and `advprop_lean`
in that strength train for the same measured time, and are tested once.

    python experiments/lean_strength.py --sets icons
    python experiments/lean_strength.py --sets emoji --seeds 8
    python experiments/lean_strength.py --quick

Time and result: docs/reproducing.md, experiment 17.
"""

from __future__ import annotations

from attacker import attack
from lean import in_budget
from measures import shift
from settings import longer, method
from study import Group, Options, base_config, folder_of, main

from advprop.comparisons.comparing import run_jobs
from advprop.comparisons.plan import Job
from advprop.config import RunConfig

EPSILONS = {"icons": (8, 16, 24, 32), "emoji": (2, 4, 8, 16)}  # of 255
SEED_TO_CHOOSE = 100
LENGTHS = {"icons": 1.0, "emoji": 2.0}  # times the usual training


def lean(base: RunConfig, epsilon: int) -> RunConfig:
    """`advprop_lean` with this strength, of 255."""
    return method(base, "advprop_lean", attack(epsilon / 255, 1))


def best_on_validation(group: Group, name: str, options: Options) -> str:
    """The variant that knows most validation images; each is trained once."""
    jobs = [
        Job(
            method=label,
            config=config.with_seed(SEED_TO_CHOOSE),
            folder=folder_of(options.out, config, SEED_TO_CHOOSE),
        )
        for label, config in group.variants.items()
        if label.startswith("lean")
    ]
    folder = options.out / "lean_strength" / name / "choice"
    rows = run_jobs(jobs, folder, recipe=f"{name}: choice", jobs=options.jobs)["runs"]
    for row in rows:
        print(f"  {row['method']}: {row['validation_accuracy']:.1%} of validation", flush=True)
    return str(max(rows, key=lambda row: row["validation_accuracy"])["method"])


def plan(name: str, options: Options) -> list[Group]:
    base = longer(base_config(name, options), LENGTHS[name])
    tried = {"vanilla": base, **{f"lean, {e}/255": lean(base, e) for e in EPSILONS[name]}}
    choice = in_budget(tried, 1.0, f"{name}, strength", options)
    best = best_on_validation(choice, name, options)
    return [
        Group(
            name=choice.name,
            variants={label: choice.variants[label] for label in ("vanilla", best)},
            costs=choice.costs,
        )
    ]


if __name__ == "__main__":
    main("lean_strength", plan, extras={"shift": shift}, sets=tuple(EPSILONS))
