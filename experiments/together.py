"""Do adversarial images add to AugMix, on images that AugMix has augmented?

AugMix is the augmentation of every image (timm's `augmix-m3-w3`), without its consistency loss. All
train for the measured time of the dearest, loading included. The row "sam + lean" of the results is
commit cfe77f2's, where `advprop_lean` could take its pass at the weights of SAM's second one.

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
    """AugMix, adversarial images, and both; SAM beside them."""
    lean, advprop = method(base, "advprop_lean"), method(base, "advprop")
    augmented = {"augmix": base, "augmix + lean": lean, "augmix + advprop": advprop}
    return {
        "vanilla": base,
        "lean": lean,
        "sam": method(base, "sam"),
        "advprop": advprop,
        **{label: with_augmix(config) for label, config in augmented.items()},
    }


def plan(name: str, options: Options) -> list[Group]:
    configs = variants(base_config(name, options))
    return [in_budget(configs, None, f"{name}, together", options)]


if __name__ == "__main__":
    main("together", plan, extras={"shift": shift, "corruption": corruption}, sets=("emoji",))
