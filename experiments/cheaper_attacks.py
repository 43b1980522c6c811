"""AdvProp with an attack of three steps, and with each way to make it cheaper, at equal epochs.

What does a saving lose in accuracy, and what does it save in measured time?

    python experiments/cheaper_attacks.py
    python experiments/cheaper_attacks.py --quick

Time and result: docs/reproducing.md, experiment 12.
"""

from __future__ import annotations

from typing import Any

from costs import QUICK_TURNS, TURNS, step_costs
from measures import shift
from settings import ATTACKS, method
from study import Group, Options, base_config, main

from advprop.config import RunConfig
from advprop.config.attacks import AttackConfig, TrainingAttackConfig

STEPS = 3
WAYS: dict[str, dict[str, Any]] = {
    "in full": {},
    "one step": {"num_steps": 1},
    "1 step, growing": {"first_steps": 1},
    "half resolution": {"resolution": 0.5},
    "first layers": {"num_steps": 1, "inner_steps": 2, "until": "model.stem"},
}


def attack_of(name: str, **changes: Any) -> TrainingAttackConfig:
    """The set's epsilon in three steps, half of it each, with these changes."""
    model = ATTACKS[name].threat_model
    settings = {"num_steps": STEPS, "step_size": model.epsilon / 2, **changes}
    if settings["num_steps"] == 1 and "inner_steps" not in settings:
        settings["step_size"] = model.epsilon  # one step has to reach as far
    return TrainingAttackConfig.model_validate({"threat_model": model.model_dump(), **settings})


def variants(name: str, base: RunConfig) -> dict[str, RunConfig]:
    found = {way: _advprop(base, attack_of(name, **changes)) for way, changes in WAYS.items()}
    full = found["in full"]
    own = {"weights of the step before": {"stale_steps": 1}, "2nd steps alone": {"attack_every": 2}}
    return found | {
        way: full.model_copy(update={"method": full.method.model_copy(update=changes)})
        for way, changes in own.items()
    }


def _advprop(base: RunConfig, attack: AttackConfig) -> RunConfig:
    return method(base, "advprop", attack)


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    configs = {"vanilla": base, **variants(name, base)}
    turns = QUICK_TURNS if options.quick else TURNS
    costs = step_costs(configs, options.out / f"step_costs-cheaper-{name}.json", turns=turns)
    return [Group(name="AdvProp, three steps", variants=configs, costs=costs)]


if __name__ == "__main__":
    main("cheaper_attacks", plan, extras={"shift": shift})
