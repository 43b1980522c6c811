"""Adversarial images first, then clean ones, against AdvProp, at four widths.

The paper's pilot study: adversarial training for half of the epochs and clean fine-tuning after
helps large nets and not small ones; AdvProp makes the detour unnecessary.

    python experiments/adversarial_first.py            # shares most runs with model_size.py
    python experiments/adversarial_first.py --quick

Time and result: docs/reproducing.md, experiment 2.
"""

from __future__ import annotations

from measures import shift
from model_size import WIDTHS, side_by_side
from settings import width
from study import Group, Options, base_config, main

METHODS = ("adversarial", "adversarial_then_clean", "advprop")


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    widths = (WIDTHS[0], WIDTHS[2]) if options.quick else WIDTHS
    return [
        Group(name=f"width {channels}", variants=side_by_side(width(base, channels), METHODS))
        for channels in widths
    ]


if __name__ == "__main__":
    main("adversarial_first", plan, extras={"shift": shift})
