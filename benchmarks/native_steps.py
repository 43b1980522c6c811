"""One real AdvProp training step of EfficientNet at its native resolution, on the CPU.

    python benchmarks/native_steps.py 0 4 7 8

Model, method and optimiser are those of the recipe `imagenet_efficientnet_bN`, in float32, on two
real photographs (scikit-learn's), each size in a process of its own. Printed: seconds, the peak of
resident memory, both losses, and what the step must have done: every parameter that takes part has
a finite gradient and the branches' statistics have moved apart. B8 needs about 15 GB.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from advprop.auxiliary.statistics import branch_distances
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.data.preprocessing import unit_range
from advprop.methods.base import Context
from advprop.randomness import ImageStreams
from advprop.recipes.imagenet import imagenet_efficientnet
from advprop.training.engine import prepare_model
from advprop.training.optim import build_optimizer


def photographs(size: int) -> torch.Tensor:
    """China's palace and a flower, [2, 3, size, size] in [0, 1]."""
    pictures = []
    for pixels in load_sample_images().images:
        picture = Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)
        pictures.append(torch.from_numpy(np.array(picture)).permute(2, 0, 1))
    return unit_range(torch.stack(pictures))


def step(size: int) -> str:
    """Train one step and describe it; raise AssertionError where it is no whole step."""
    config = imagenet_efficientnet(size)
    settings = replace(config.training, mixed_precision="no")
    torch.manual_seed(0)
    shape = (3, config.data.image_size, config.data.image_size)
    model = config.model.build(num_classes=1000, image_shape=shape)
    method = config.method.build()
    model = prepare_model(
        add_auxiliary_norms(model, method.auxiliary), settings, torch.device("cpu")
    ).train()
    optimizer = build_optimizer(model, settings)
    images = photographs(config.data.image_size).contiguous(memory_format=torch.channels_last)
    labels = torch.tensor([698, 985])  # palace, daisy
    began = time.perf_counter()
    context = Context(generator=ImageStreams.for_batch(0, 0, [0, 1]))
    metrics = method.forward_backward(model, images, labels, context)
    optimizer.step()
    seconds = time.perf_counter() - began
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert not missing, f"no gradient for {missing[:3]}"
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    distances = branch_distances(model, "adversarial")
    assert any(distance.mean_distance > 0 for distance in distances)
    clean, adversarial = (metrics.kinds[kind].loss.item() for kind in ("clean", "adversarial"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return (
        f"B{size}  {shape[1]} pixels  {method.attack.num_steps} attack steps  {seconds:6.1f} s  "
        f"{peak:5.1f} GB  losses {clean:.3f} {adversarial:.3f}  "
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
