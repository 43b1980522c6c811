"""Real photographs without a download: scikit-learn's two, whole or cut into many."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from advprop.data.preprocessing import unit_range

NAMES = ("palace", "flower")


def photographs() -> dict[str, Image.Image]:
    """China's palace and a flower, 640 x 427."""
    return dict(zip(NAMES, map(Image.fromarray, load_sample_images().images), strict=True))


def resized(size: int) -> torch.Tensor:
    """Both, [2, 3, size, size] in [0, 1]."""
    pictures = [
        torch.from_numpy(np.array(picture.resize((size, size), Image.Resampling.BICUBIC)))
        for picture in photographs().values()
    ]
    return unit_range(torch.stack(pictures).permute(0, 3, 1, 2))


def save_crops(folder: Path, *, count: int, size: tuple[int, int]) -> None:
    """`count` JPEG files of `size` (width, height), half of them from each, a folder each."""
    shuffled = random.Random(0)
    for name, picture in photographs().items():
        (folder / name).mkdir(parents=True)
        for number in range(count // 2):
            left, top = (
                shuffled.randint(0, whole - part)
                for whole, part in zip(picture.size, size, strict=True)
            )
            crop = picture.crop((left, top, left + size[0], top + size[1]))
            crop.save(folder / name / f"{number}.jpg", quality=90)
