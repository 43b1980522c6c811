"""`advprop_lean` and vanilla in the same time on many images, for three times as long as usual.

In short trainings whole epochs are coarse: of vanilla's 8, `advprop_lean` gets 7 or 8. Of 24 it
gets 21 to 23. The strength is that of a first look, with other seeds, and is not chosen again.

    python experiments/lean_longer.py --seeds 3   # three seeds of 20,000 icons
    python experiments/lean_longer.py --quick

Time and result: docs/reproducing.md, experiment 17.
"""

from __future__ import annotations

from lean import in_budget
from lean_strength import lean
from measures import corruption, shift
from settings import longer
from study import Group, Options, base_config, main

EPSILON = 16  # of 255
LENGTH = 3.0  # times the set's usual training


def plan(name: str, options: Options) -> list[Group]:
    base = longer(base_config(name, options), LENGTH)
    variants = {"vanilla": base, f"lean, {EPSILON}/255": lean(base, EPSILON)}
    return [in_budget(variants, 1.0, f"{name}, longer", options)]


if __name__ == "__main__":
    main("lean_longer", plan, extras={"shift": shift, "corruption": corruption}, sets=("icons",))
