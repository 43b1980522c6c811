"""`advprop_lean` with clean images alone for the last part of training, in vanilla's own time.

    python experiments/clean_end.py
    python experiments/clean_end.py --quick

Time and result: docs/reproducing.md, experiment 20.
"""

from __future__ import annotations

from lean import in_budget
from measures import shift
from settings import longer, method
from study import Group, Options, base_config, main

ENDS = (0.25, 0.5)
LENGTH = 2.0  # of the set's usual training, where vanilla stops improving


def plan(name: str, options: Options) -> list[Group]:
    base = longer(base_config(name, options), LENGTH)
    lean = method(base, "advprop_lean")
    configs = {"vanilla": base, "lean": lean}
    for end in ENDS:
        chosen = lean.method.model_copy(update={"clean_end": end})
        configs[f"lean, the last {end:.0%} clean"] = base.model_copy(update={"method": chosen})
    return [in_budget(configs, 1.0, f"{name}, clean end", options)]


if __name__ == "__main__":
    main("clean_end", plan, extras={"shift": shift})
