"""`advprop_lean` and vanilla in the same time where the usual training is short.

On icons in 32 pixels for three times the usual epochs, on icons in 64 pixels, and in fine-tuning
for 18 epochs. In short trainings whole epochs are coarse: of vanilla's 8, `advprop_lean` gets 7 or
8. Of 24 it gets 21 to 23. The strengths are fixed beforehand, and no test image chooses among them.

    python experiments/lean_longer.py --sets icons --seeds 8
    python experiments/lean_longer.py --sets icons64,emoji --seeds 3
    python experiments/lean_longer.py --quick

Time and result: docs/reproducing.md, experiment 17.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from finetuning import finetune
from lean import in_budget
from lean_strength import lean
from measures import corruption, shift
from settings import longer
from study import Group, Options, base_config, main

from advprop.config import RunConfig

EPSILONS = {"icons": (16,), "icons64": (16,), "emoji": (1, 4)}  # of 255
LENGTHS = {"icons": 3.0, "icons64": 1.0, "emoji": 4.5}  # times the usual training


def plan(name: str, options: Options) -> list[Group]:
    start = finetune(options) if name == "emoji" else base_config(name, options)
    base = longer(start, LENGTHS[name])
    strengths = {f"lean, {epsilon}/255": lean(base, epsilon) for epsilon in EPSILONS[name]}
    return [in_budget({"vanilla": base, **strengths}, 1.0, f"{name}, longer", options)]


def corruption_of_icons(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Accuracy on corrupted images; at 64 pixels it would take as long as the training."""
    return corruption(folder, config) if config.recipe == "icons" else {}


if __name__ == "__main__":
    extras = {"shift": shift, "corruption": corruption_of_icons}
    main("lean_longer", plan, extras=extras, sets=tuple(EPSILONS))
