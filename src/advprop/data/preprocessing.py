"""Turn image files into a model's input: a fixed view for evaluation, random ones in training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from advprop.data.frames import Frame, FramedTransform
from advprop.data.reading import read_image
from advprop.shapes import unit_range

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic", "lanczos"]
CropMode: TypeAlias = Literal["center", "squash"]
Erasing: TypeAlias = Literal["const", "rand", "pixel"]
Transform: TypeAlias = Callable[[Image.Image], Tensor]

_SMALLEST_CROP, _LARGEST_EDGE = 0.1, 8192


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """The fixed view of an image for evaluation, as in timm: resized, then cropped at the centre.

    The shorter side is resized to size / `crop_pct`; with `crop_mode` "squash" both sides are,
    which may change the aspect ratio. `image_shape` is (channels, height, width), with 1 channel
    (grey) or 3 (RGB). Calling it with a path returns the image in [0, 1]; the model's first layer
    standardises it. Raises ValueError for settings out of bounds.
    """

    image_shape: tuple[int, int, int]
    interpolation: Interpolation = "bicubic"
    crop_pct: float = 0.875
    crop_mode: CropMode = "center"

    def __post_init__(self) -> None:
        channels, *sizes = self.image_shape
        if channels not in (1, 3):
            raise ValueError(f"{channels} channels: images have 1 (grey) or 3 (RGB)")
        if len(sizes) != 2 or min(sizes) < 1:
            raise ValueError(
                f"image size {tuple(sizes)}: height and width of at least 1 are needed"
            )
        if not _SMALLEST_CROP <= self.crop_pct <= 1:
            raise ValueError(
                f"crop_pct={self.crop_pct}: must be at least {_SMALLEST_CROP} and at most 1"
            )
        if max(sizes) / self.crop_pct > _LARGEST_EDGE:
            raise ValueError(
                f"image size {tuple(sizes)} with crop_pct={self.crop_pct}: images would be resized "
                f"to {max(sizes) / self.crop_pct:,.0f} pixels an edge, at most {_LARGEST_EDGE:,} "
                "are allowed: take a smaller size"
            )
        if self.interpolation not in (known := get_args(Interpolation)):
            raise ValueError(f"interpolation={self.interpolation!r}: must be one of {known}")
        if self.crop_mode not in (modes := get_args(CropMode)):
            raise ValueError(f"crop_mode={self.crop_mode!r}: must be one of {modes}")

    def __call__(self, path: str | Path) -> Float[Tensor, "C H W"]:
        """Return the image in `path`, float32 in [0, 1]; raises ValueError if it is unreadable."""
        return self.apply(read_image(path, channels=self.image_shape[0]))

    def apply(self, image: Image.Image) -> Float[Tensor, "C H W"]:
        """Return the view of an image from `read_image`, float32 in [0, 1]."""
        return unit_range(self.framed(image)[0])

    def framed(self, image: Image.Image) -> tuple[UInt8[Tensor, "C H W"], Frame]:
        """Return the view of an image from `read_image`, in bytes, and its frame."""
        return self._transform(image)

    @cached_property
    def _transform(self) -> FramedTransform:
        return FramedTransform(
            _timm_transform(
                self, is_training=False, crop_pct=self.crop_pct, crop_mode=self.crop_mode
            )
        )


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Random views for training: random resized crop, flip, optional colour changes and erasing.

    `scale` is the crop's share of the area, `ratio` its width over height, `hflip` the probability
    of a flip, `color_jitter` the strength of random brightness, contrast and saturation (0: none).
    `auto_augment` names a policy of timm ("rand-m9-mstd0.5", "original", ...), which replaces
    `color_jitter`. `random_erasing` is the probability that a rectangle is filled: `erasing_mode`
    chooses grey ("const"), one random colour ("rand") or one for each pixel ("pixel"). Raises
    ValueError for settings out of bounds, or `color_jitter` together with `auto_augment`.
    """

    # pydantic reads this if the class is a field of a configuration: unknown names are errors
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    hflip: float = 0.5
    color_jitter: float = 0.0
    auto_augment: str | None = None
    random_erasing: float = 0.0
    erasing_mode: Erasing = "pixel"

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale={self.scale}: must be (low, high) with 0 < low <= high <= 1")
        narrow, wide = self.ratio
        if not 0.01 <= narrow <= wide <= 100:
            raise ValueError(
                f"ratio={self.ratio}: must be (low, high) with 0.01 <= low <= high <= 100"
            )
        if not 0 <= self.hflip <= 1:
            raise ValueError(f"hflip={self.hflip}: a probability, from 0 to 1")
        if not 0 <= self.color_jitter <= 10:
            raise ValueError(
                f"color_jitter={self.color_jitter}: must be at least 0 (none) and at most 10"
            )
        if self.color_jitter and self.auto_augment:
            raise ValueError(
                f"color_jitter={self.color_jitter} and auto_augment={self.auto_augment!r}: timm's "
                "policies change colours in its place; leave one out"
            )
        if not 0 <= self.random_erasing <= 1:
            raise ValueError(f"random_erasing={self.random_erasing}: a probability, from 0 to 1")
        if self.erasing_mode not in (known := get_args(Erasing)):
            raise ValueError(f"erasing_mode={self.erasing_mode!r}: must be one of {known}")

    def transform(self, preprocessing: Preprocessing) -> Transform:
        """Return a function from an image to a random view, uint8 [C, H, W] as in `preprocessing`.

        Its random numbers come from the global streams of `random`, numpy and torch. Raises
        ValueError for an unknown policy, or any policy with grey images: they are made for RGB.
        """
        if self.auto_augment and preprocessing.image_shape[0] != 3:
            raise ValueError(
                f"auto_augment={self.auto_augment!r}: timm's policies are made for 3 channels, "
                "the images have 1; leave it out"
            )
        try:
            transform = _timm_transform(
                preprocessing,
                is_training=True,
                scale=self.scale,
                ratio=self.ratio,
                hflip=self.hflip,
                color_jitter=self.color_jitter or None,
                auto_augment=self.auto_augment,
            )
        except (AssertionError, KeyError, ValueError) as error:
            raise ValueError(
                f"auto_augment={self.auto_augment!r}: timm knows no such policy ({error}); "
                'examples: "rand-m9-mstd0.5", "original", "v0", "augmix-m3-w3"'
            ) from error
        for operation in _policy_operations(transform):
            if operation.name.startswith("Posterize"):
                operation.aug_fn = _posterize
        return transform

    def erase(self, image: Tensor) -> Tensor:
        """Return `image` in [0, 1]; with probability `random_erasing` a rectangle is filled.

        If that is 0, `image` is returned as it is, floats in [0, 1] or bytes. Random numbers come
        from the global streams of `random` and torch.
        """
        if not self.random_erasing:
            return image
        from timm.data.random_erasing import RandomErasing  # seconds to import

        image = unit_range(image)
        erasing = RandomErasing(self.random_erasing, mode=self.erasing_mode, device="cpu")
        # timm's colours are standard normal, as for standardised images
        colours = erasing(torch.full_like(image, torch.nan))
        return torch.where(colours.isnan(), image, (0.5 + 0.25 * colours).clamp(0, 1))


def _timm_transform(preprocessing: Preprocessing, **settings: Any) -> Transform:
    from timm.data import create_transform  # takes seconds to import; only needed for files

    transform: Transform = create_transform(
        input_size=preprocessing.image_shape,
        interpolation=preprocessing.interpolation,
        normalize=False,
        **settings,
    )
    return transform


def _policy_operations(transform: Any) -> Iterator[Any]:
    """Yield the single operations of timm's policies in a transform."""
    for step in transform.transforms:
        yield from getattr(step, "ops", ())  # RandAugment, AugMix
        for operations in getattr(step, "policy", ()):  # AutoAugment
            yield from operations


def _posterize(image: Image.Image, bits_to_keep: int, **_: object) -> Image.Image:
    """Posterize as timm does; also accepts 0 bits, which policies use and newer Pillows refuse."""
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return image if bits_to_keep >= 8 else ImageOps.posterize(image, bits_to_keep)
