"""What a method is told of a training before it begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """Facts about a training that a method is given before its first step.

    `image_shape` is (channels, height, width). `folder` is the method's own, for files that last as
    long as the run's, or None. Each of `num_processes`, on `num_machines`, prepares a method of its
    own. `repeats` is how often an image comes in one batch; `mixes_images` tells that images are
    mixtures of two (mixup, CutMix).
    """

    num_images: int
    image_shape: tuple[int, int, int]
    folder: Path | None = None
    seed: int = 0
    num_processes: int = 1
    num_machines: int = 1
    repeats: int = 1
    mixes_images: bool = False
