"""How long the recipes for one's own images take on one CPU thread.

    OMP_NUM_THREADS=1 python benchmarks/recipe_seconds.py from_scratch finetune

Model, method, batch size and optimiser are the recipe's, with random weights for ten classes; the
images are noise of the recipe's size, since reading them is no part of this. Printed: the
processor seconds of a few steps, times what an epoch of 1,000 images has. Processor seconds rather
than those on the clock, which on a busy machine tell about the others.
"""

from __future__ import annotations

import sys
import time

import torch

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.methods.base import Context
from advprop.randomness import ImageStreams
from advprop.recipes import RECIPES
from advprop.training.engine import prepare_model
from advprop.training.optim import build_optimizer

STEPS = 3


def seconds_per_thousand(name: str) -> float:
    """Processor seconds of this process for 1,000 images, after one step to warm up."""
    config = RECIPES[name].build()
    size, settings = config.data.image_size, config.training
    torch.manual_seed(0)
    net = config.model.without_weights().build(num_classes=10, image_shape=(3, size, size))
    method = config.method.build()
    net = add_auxiliary_norms(net, method.auxiliary)
    model = prepare_model(net, settings, torch.device("cpu")).train()
    optimizer = build_optimizer(model, settings)
    count = settings.batch_size
    images = torch.rand(count, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(count) % 10
    taken = []
    for step in range(STEPS + 1):
        began = time.process_time()
        context = Context(generator=ImageStreams.for_batch(0, step, range(count)))
        method.forward_backward(model, images, labels, context)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        taken.append(time.process_time() - began)
    return 1000 / count * sum(taken[1:]) / STEPS


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    for name in names:
        epochs = RECIPES[name].build().training.num_epochs
        seconds = seconds_per_thousand(name)
        print(
            f"{name}: {seconds:.0f} s a 1,000 images and epoch, "
            f"{seconds * epochs / 60:.0f} min a 1,000 images in {epochs} epochs",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["from_scratch", "finetune"])
