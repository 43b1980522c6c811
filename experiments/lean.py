"""Looking for `advprop_lean`: what gains most in 1.25 times vanilla's measured time, on validation.

Every candidate trains for as many epochs as its measured step allows. No test image decides: the
experiment `budgets` tests what came out of this one, with seeds of its own. Commit 242c495 has the
candidates with two passes or a branch, which lost.

    python experiments/lean.py
    python experiments/lean.py --quick

Time and result: docs/reproducing.md, experiment 10.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import Any

from finetuning import finetune
from settings import ATTACKS, longer, method
from study import Group, Options, base_config, folder_of, read_options, write_results

from advprop.comparisons.comparing import run_jobs
from advprop.comparisons.plan import Job, stretched
from advprop.comparisons.step_costs import TURNS, step_costs
from advprop.config import RunConfig
from advprop.config.attacks import AttackConfig, OneStepConfig
from advprop.config.methods import AdvPropLeanConfig
from advprop.recipes.attacks import grey_levels

BUDGET = 1.25
SEEDS_TO_CHOOSE = (100, 101)
BASE_LENGTHS = {"emoji": 2.0, "mnist5k": 2.0, "Lite0": 1.5}
"""Times the usual epochs: where vanilla stops improving from scratch (`lengths.py`)."""

Start = tuple[RunConfig, AttackConfig]


def starts(name: str, options: Options) -> dict[str, Start]:
    """By group: vanilla at the base length, and the usual attack there."""
    found: dict[str, Start] = {}
    if name == "emoji":
        found["Lite0"] = finetune(options), grey_levels(1, 1)
    found[name] = base_config(name, options), ATTACKS[name]
    return {
        group: (longer(base, BASE_LENGTHS[group]), attack)
        for group, (base, attack) in found.items()
    }


def lean(
    attack: AttackConfig, fraction: float, *, strength: float = 1.0, step_size: float | None = None
) -> AdvPropLeanConfig:
    """`advprop_lean` in `strength` times the attack's epsilon, in steps of it by default."""
    model = attack.threat_model
    own = model.model_copy(update={"epsilon": strength * model.epsilon})
    one_step = OneStepConfig(threat_model=own, step_size=step_size)
    return AdvPropLeanConfig(attack=one_step, attacked_fraction=fraction)


CANDIDATES: dict[str, Callable[[AttackConfig], AdvPropLeanConfig]] = {
    "half, mixed": lambda attack: lean(attack, 0.5),
    "half, mixed, half epsilon": lambda attack: lean(attack, 0.5, strength=0.5),
    "quarter, mixed": lambda attack: lean(attack, 0.25),
    "three quarters, mixed": lambda attack: lean(attack, 0.75),
    "noise on half, mixed": lambda attack: lean(attack, 0.5, step_size=0.0),
}
RIVALS = ("fast", "adversarial", "mixed")


def variants(base: RunConfig, attack: AttackConfig) -> dict[str, RunConfig]:
    """All that is tried, at the length of `base`."""
    return {
        "vanilla": base,
        **{name: method(base, name, attack) for name in RIVALS},
        **{
            name: base.model_copy(update={"method": build(attack)})
            for name, build in CANDIDATES.items()
        },
    }


def in_budget(
    configs: dict[str, RunConfig], budget: float | None, group: str, options: Options
) -> Group:
    """Each for `budget` times the measured time of vanilla, or (None) for that of the dearest.

    Epochs are whole, so short trainings miss it by up to half an epoch.
    """
    turns = 6 if options.quick else TURNS
    costs = step_costs(configs, options.out / f"step_costs-{group}.json", turns=turns).costs
    budget = budget or max(costs.values())
    return Group(
        name=f"{group}, {budget:.3g} x vanilla",
        variants={
            name: stretched(config, budget / costs[name], whole=round)
            for name, config in configs.items()
        },
        costs=costs,
    )


def validate(name: str, group: Group, options: Options) -> list[dict[str, Any]]:
    """Validation accuracies of the group, a row for each run."""
    planned = [
        Job(
            method=label, config=config.with_seed(seed), folder=folder_of(options.out, config, seed)
        )
        for seed in SEEDS_TO_CHOOSE
        for label, config in group.variants.items()
    ]
    folder = options.out / "lean" / name / group.name.replace(" ", "-")
    rows = run_jobs(planned, folder, recipe=f"{name}: lean", jobs=options.jobs)["runs"]
    kept = ("seed", "epochs", "total_passes", "train_seconds", "validation_accuracy")
    return [
        {
            "group": group.name,
            "label": row["method"],
            "step_cost": group.costs[row["method"]],
            **{key: row[key] for key in kept},
        }
        for row in rows
    ]


def show(rows: list[dict[str, Any]]) -> None:
    """Mean validation accuracies, best first."""
    labels = {(row["group"], row["label"]) for row in rows}
    means = {
        key: fmean(r["validation_accuracy"] for r in rows if (r["group"], r["label"]) == key)
        for key in labels
    }
    for (group, label), value in sorted(means.items(), key=lambda item: (item[0][0], -item[1])):
        print(f"  {group:24} {label:28} {value:.1%}", flush=True)


def main() -> None:
    options = read_options("lean")
    for name in options.sets:
        rows = []
        for group, (base, attack) in starts(name, options).items():
            rows += validate(
                name, in_budget(variants(base, attack), BUDGET, group, options), options
            )
        show(rows)
        write_results("lean", name, rows, options)


if __name__ == "__main__":
    main()
