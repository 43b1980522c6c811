"""Does AdvProp add to what else a second pass buys: AugMix with adversarial images, SAM with them?

AugMix is used as the augmentation of every image (timm's `augmix-m3-w3`), without its consistency
loss. SAM takes `advprop_lean`'s pass at the weights where the batch's loss nearby is highest. All
train for the measured time of the dearest, loading included.

    python experiments/together.py
    python experiments/together.py --quick

Time and result: docs/reproducing.md, experiment 19.
"""

from __future__ import annotations

import dataclasses

from lean import in_budget
from measures import corruption, shift
from settings import method
from study import Group, Options, base_config, main

from advprop.config import RunConfig


def with_augmix(config: RunConfig) -> RunConfig:
    """Every training image augmented by AugMix."""
    augmentation = dataclasses.replace(config.data.augmentation, auto_augment="augmix-m3-w3")
    data = config.data.model_copy(update={"augmentation": augmentation})
    return config.model_copy(update={"data": data})


def variants(base: RunConfig) -> dict[str, RunConfig]:
    """Each rival, adversarial images, and both; AugMix where images are in colour."""
    lean, advprop = method(base, "advprop_lean"), method(base, "advprop")
    sharp = lean.method.model_copy(update={"rho": 0.05})
    found = {
        "vanilla": base,
        "lean": lean,
        "sam": method(base, "sam"),
        "sam + lean": base.model_copy(update={"method": sharp}),
    }
    if base.data.augmentation:
        augmented = {"augmix": base, "augmix + lean": lean, "augmix + advprop": advprop}
        found["advprop"] = advprop
        found |= {label: with_augmix(config) for label, config in augmented.items()}
    return found


def plan(name: str, options: Options) -> list[Group]:
    configs = variants(base_config(name, options))
    return [in_budget(configs, None, f"{name}, together", options)]


if __name__ == "__main__":
    main("together", plan, extras={"shift": shift, "corruption": corruption})
