"""The branch soups of a run: plain models between its clean and its first auxiliary branch."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import cast

import torch
from torch import nn

from advprop.auxiliary.route import has_auxiliary_norms
from advprop.auxiliary.soup import mix_branches
from advprop.data.batches.loaders import train_batches
from advprop.models.standardize import Standardized
from advprop.runs.folder import Run
from advprop.shapes import Images

NUM_IMAGES = 10_000
"""The largest number of training images that estimate the running statistics."""


def mix_run(run: Run, weight: float) -> Standardized:
    """Return the run's branch soup of `weight`: a plain model in eval mode on the same device.

    Running statistics are estimated from the run's training images as its first epoch augments and
    orders them, so they are the same each time, and no test image is used. Raises ValueError for a
    model without branches or a weight outside [0, 1], and OSError if images are needed but missing.
    """
    check_branches(run.model, str(run.folder))
    mixed = mix_branches(run.model, weight, images=_training_images(run))
    return cast("Standardized", mixed)


def check_branches(model: nn.Module, name: str) -> None:
    """Raise ValueError where `model`, which the user knows as `name`, has no branches."""
    if not has_auxiliary_norms(model):
        raise ValueError(
            f"{name}: the model has no branches to mix; name a run of a method with an auxiliary "
            "branch, such as advprop"
        )


def _training_images(run: Run) -> Iterator[Images]:
    config = run.config
    # of the two, the one that fits into the memory of one device
    size = min(config.training.batch_size, config.evaluation.batch_size)
    batches = train_batches(
        run.load_data().train,
        batch_size=size,
        seed=config.seed,
        epoch=0,
        num_workers=config.evaluation.num_workers,
    )
    device = run.model.mean.device
    for batch in islice(batches, max(1, NUM_IMAGES // size)):
        yield batch.to(device, memory_format=torch.contiguous_format).images
