"""AdvProp and what else a second pass buys, all in the same measured time.

Vanilla, mixed batches, AdvProp and its cheaper forms, SAM, AugMix and MaxUp train for as long as
the dearest of them takes; on icons, where that is long, for as long as vanilla takes. What should
somebody who has that much time spend it on?

    python experiments/rivals.py                # digits, drawings, icons
    python experiments/rivals.py --quick

Time and result: docs/reproducing.md, experiment 14.
"""

from __future__ import annotations

from attacker import attack
from lean import in_budget
from measures import corruption, shift
from settings import SMALL_SETS, method, suited
from study import Group, Options, base_config, main

from advprop.config import RunConfig
from advprop.config.methods import method_config

METHODS = ("mixed", "advprop", "fast", "advprop_lean", "sam", "augmix", "maxup")
EXTRAS = {"shift": shift, "corruption": corruption}
BUDGETS = {"icons": 1.0}  # in vanilla's time; where there is none: the dearest method's
LEAN_ATTACKS = {"icons": attack(8 / 255, 1)}  # by validation: `lean_strength.py`


def rivals(base: RunConfig) -> dict[str, RunConfig]:
    """Vanilla and all methods, by what the tables call them."""
    suitable = [name for name in METHODS if name in suited(base)]
    configs = {"vanilla": base, **{name: method(base, name) for name in suitable}}
    configs["advprop_lean"] = method(base, "advprop_lean", LEAN_ATTACKS.get(base.recipe))
    others = {
        "sam, every 5th step": ("sam", {"every": 5}),
        "augmix without JSD": ("augmix", {"jsd": 0.0}),
    }
    for label, (name, settings) in others.items():
        chosen = method_config(name).model_copy(update=settings)
        configs[label] = base.model_copy(update={"method": chosen})
    return configs


def plan(name: str, options: Options) -> list[Group]:
    configs = rivals(base_config(name, options))
    return [in_budget(configs, BUDGETS.get(name), f"{name}, rivals", options)]


if __name__ == "__main__":
    main("rivals", plan, extras=EXTRAS, sets=(*SMALL_SETS, "icons"))
