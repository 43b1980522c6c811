"""How much training data there is, and where the gain of adversarial images ends.

    python experiments/training_data.py
    python experiments/training_data.py --quick

Smaller sets are trained on for as many steps as the usual one, so that they are not merely trained
for less; larger ones for as many epochs. Time and result: docs/reproducing.md, experiment 6.
"""

from __future__ import annotations

from measures import shift
from model_size import side_by_side
from settings import longer, trained_on
from study import Group, Options, base_config, main

AMOUNTS = {"emoji": (250, 1000, 2500), "mnist5k": (125, 500, 2500)}
METHODS = ("mixed", "advprop")


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    amounts = AMOUNTS[name][:2] if options.quick else AMOUNTS[name]
    usual = base.data.num_train or amounts[-1]
    return [
        Group(
            name=f"{amount} images",
            variants=side_by_side(
                longer(trained_on(base, amount), max(1.0, usual / amount)), METHODS
            ),
        )
        for amount in amounts
    ]


if __name__ == "__main__":
    main("training_data", plan, extras={"shift": shift})
