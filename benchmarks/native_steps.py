"""One real AdvProp training step of EfficientNet at its native resolution, on the CPU.

    python benchmarks/native_steps.py 0 4 7 8

Model, method and optimiser are those of the recipe `imagenet_efficientnet_bN`, in float32, on two
real photographs (scikit-learn's), each size in a process of its own. Printed: seconds, the peak of
resident memory, both losses, and what the step must have done: every parameter that takes part has
a finite gradient and the branches' statistics have moved apart. B8 needs about 15 GB.

Not among those of `make bench`: it measures nothing against anything.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from dataclasses import replace

import torch
from photographs import resized
from recipe_steps import recipe_model, recipe_step

from advprop.auxiliary.statistics import branch_distances
from advprop.recipes.imagenet import imagenet_efficientnet

LABELS = torch.tensor([698, 985])  # palace, daisy


def step(size: int) -> str:
    """Train one step and describe it; raise AssertionError where it is no whole step."""
    config = imagenet_efficientnet(size)
    config = config.model_copy(update={"training": replace(config.training, mixed_precision="no")})
    model, optimizer = recipe_model(config, 1000)
    pixels = config.data.image_size
    train = recipe_step(config, model, optimizer, resized(pixels), LABELS)
    began = time.perf_counter()
    metrics = train()
    seconds = time.perf_counter() - began
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing, f"no gradient for {missing[:3]}"
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    distances = branch_distances(model, "adversarial")
    assert any(distance.mean_distance > 0 for distance in distances)
    clean, adversarial = (metrics.kinds[kind].loss.item() for kind in ("clean", "adversarial"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"B{size}  {pixels} pixels  {config.method.attack.num_steps} attack steps  "
        f"{seconds:6.1f} s  {peak:5.1f} GB  losses {clean:.3f} {adversarial:.3f}  "
        f"perturbation {255 * metrics.perturbation.item():.2f}/255  "
        f"{sum(p.numel() for p in model.parameters()):,} parameters"
    )


def main(sizes: list[int]) -> None:
    context = multiprocessing.get_context("spawn")  # so that each peak is of one size
    for size in sizes:
        with context.Pool(1) as pool:
            print(pool.apply(step, (size,)), flush=True)


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [0])
