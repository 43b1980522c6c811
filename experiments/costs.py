"""What a training step of each method costs on an image set, in steps of vanilla.

python experiments/costs.py    # every method, on both image sets; needs a quiet machine
"""

from __future__ import annotations

from pathlib import Path

from settings import SMALL_SETS, method, suited

from advprop.comparisons.step_costs import step_costs


def main() -> None:
    """Measure every method with its defaults on each image set, and print what it costs."""
    for name, build in SMALL_SETS.items():
        base = build().with_method("vanilla")
        configs = {kind: method(base, kind) for kind in suited(base)}
        costs = step_costs(configs, Path("runs/experiments") / f"step_costs-{name}.json").costs
        for kind, cost in costs.items():
            print(f"{name}  {kind:24} {cost:6.2f}")


if __name__ == "__main__":
    main()
