"""Accuracy against model size: vanilla, adversarial, mixed and AdvProp at four widths.

The paper's two main figures at small scale: adversarial training with shared layers loses clean
accuracy, most of all in small nets; AdvProp gains it, most of all in large ones.

    python experiments/model_size.py            # five seeds, two image sets
    python experiments/model_size.py --quick    # two widths, two seeds, a few epochs

Time and result: docs/reproducing.md, experiment 1.
"""

from __future__ import annotations

from measures import corruption, shift
from settings import longer, method, width
from study import Group, Options, base_config, main

from advprop.config import RunConfig
from advprop.config.attacks import AttackConfig

WIDTHS = (8, 12, 16, 24)
METHODS = ("adversarial", "mixed", "advprop")


def side_by_side(
    base: RunConfig, methods: tuple[str, ...] = METHODS, attack: AttackConfig | None = None
) -> dict[str, RunConfig]:
    """Vanilla, `methods`, and vanilla for as many passes as the dearest of them costs."""
    chosen = {name: method(base, name, attack) for name in methods}
    dearest = max(config.method.build().passes_per_image for config in chosen.values())
    return {"vanilla": base, "vanilla_equal_cost": longer(base, dearest), **chosen}


def plan(name: str, options: Options) -> list[Group]:
    base = base_config(name, options)
    widths = (WIDTHS[0], WIDTHS[2]) if options.quick else WIDTHS
    return [
        Group(name=f"width {channels}", variants=side_by_side(width(base, channels)))
        for channels in widths
    ]


if __name__ == "__main__":
    main("model_size", plan, extras={"shift": shift, "corruption": corruption})
