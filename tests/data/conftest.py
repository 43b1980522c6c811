from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImages = Callable[..., Path]


@pytest.fixture
def write_images(tmp_path: Path) -> WriteImages:
    """Writes so many random RGB images into each folder: {"train/cat": 3, ...}; gives the root."""

    def write(counts: Mapping[str, int], *, size: tuple[int, int] = (12, 10)) -> Path:
        root = tmp_path / "images"
        for folder, count in counts.items():
            (root / folder).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                generator = np.random.default_rng([number, *os.fsencode(folder)])
                pixels = generator.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / folder / f"{number:03d}.png")
        return root

    return write
