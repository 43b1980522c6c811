"""Every method in the same measured time: 1.0, 1.25 and 1.5 times that of vanilla.

The question of whoever has an hour and not seven: which method gives the best model in it? Each
trains for as many epochs as its measured step allows; vanilla too, so that all runs of a budget
cost the same. `advprop_lean` was chosen by `lean.py` on validation, with other seeds. Methods that
were not made to be cheap stand at the largest budget only, and two of them in fine-tuning.

    python experiments/budgets.py
    python experiments/budgets.py --quick

Time and result: docs/reproducing.md, experiment 11.
"""

from __future__ import annotations

import dataclasses

from lean import in_budget, starts
from measures import shift
from settings import method, suited
from study import Group, Options, main

BUDGETS = {"emoji": (1.0, 1.25, 1.5), "mnist5k": (1.0, 1.25, 1.5), "Lite0": (1.0,)}
CHEAP = ("vanilla", "fast", "advprop_lean")
FEW_OTHERS = {"Lite0": ("mixed", "advprop")}
MAX_SEEDS = {"Lite0": 3}  # of which a test takes longer than its training


def plan(name: str, options: Options) -> list[Group]:
    groups = []
    for group, (base, attack) in starts(name, options).items():
        others = FEW_OTHERS.get(group, suited(base))
        configs = {kind: method(base, kind, attack) for kind in dict.fromkeys((*CHEAP, *others))}
        *small, largest = BUDGETS[group]
        for budget in [largest] if options.quick else [*small, largest]:
            tried = {kind: configs[kind] for kind in (configs if budget == largest else CHEAP)}
            found = in_budget(tried, budget, group, options)
            groups.append(dataclasses.replace(found, max_seeds=MAX_SEEDS.get(group)))
    return groups


if __name__ == "__main__":
    main("budgets", plan, extras={"shift": shift})
