"""Facts about a training that its method is given beforehand."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """Facts about a training that a method is given before its first step.

    `num_images` counts the training images, and `image_shape` is their (channels, height, width).
    `folder` is a folder of the method's own for files that are kept as long as the run, or None.
    `seed` is the run's. `num_processes` processes on `num_machines` machines train together; each
    prepares a method of its own. `repeats` is the number of times that an image occurs in one
    batch. `mixes_images` tells whether images are mixtures of two (mixup, CutMix).
    """

    num_images: int
    image_shape: tuple[int, int, int]
    folder: Path | None = None
    seed: int = 0
    num_processes: int = 1
    num_machines: int = 1
    repeats: int = 1
    mixes_images: bool = False
