"""How long the recipes for one's own images take on one CPU thread.

    python benchmarks/recipe_seconds.py [--quick]

Model, method, batch size and optimiser are the recipe's, with random weights for ten classes; the
images are noise of the recipe's size, since reading them is no part of this. Shown are processor
seconds for an epoch of 1,000 images. Processor seconds rather than those on the clock, which on a
busy machine tell about the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from measuring import Row, interleaved
from recipe_steps import recipe_model, recipe_step
from showing import show

from advprop.recipes import RECIPES

NAMES = ("from_scratch", "finetune")


def measure(quick: bool) -> Iterator[Row]:
    for name in NAMES:
        config = RECIPES[name].build()
        count = 2 if quick else min(16, config.training.batch_size)
        images = torch.rand(count, 3, config.data.image_size, config.data.image_size)
        step = recipe_step(config, *recipe_model(config, 10), images, torch.arange(count) % 10)
        times = interleaved({name: step}, repeats=1 if quick else 2)
        what = f"{name}, one of {config.training.num_epochs} epochs of 1,000 images"
        yield times.absolute(name, what, scale=1000 / count)


if __name__ == "__main__":
    show(measure)
