"""Mixup and CutMix of neighbouring images, and further versions of images by AugMix."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from advprop.randomness import image_key, kept_streams, seed_streams
from advprop.shapes import AugMixed, Batch, in_bytes, unit_range

# Pillow's operations in the paper's code, by timm's names; timm's own list has four more, which
# resemble corruptions that models are tested with
_OPERATIONS = (
    *("AutoContrast", "Equalize", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing"),
    *("ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """Mixup and CutMix of pairs, whose labels become distributions over classes (timm's `Mixup`).

    `mixup` (Zhang et al., 2018) and `cutmix` (Yun et al., 2019) are the alphas of the Beta
    distribution of the shares; 0 is off. A pair is mixed with `probability`; if both are on, CutMix
    is used with `switch_probability`. Raises ValueError for numbers out of bounds.
    """

    # pydantic reads this if the class is a field of a configuration: unknown names are errors
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0
    switch_probability: float = 0.5

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            if not (math.isfinite(alpha) and alpha >= 0):
                raise ValueError(f"{name}={alpha}: an alpha of at least 0 (0: off, 1: uniform)")
        for name in ("probability", "switch_probability"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name}={value}: a probability, from 0 to 1")

    @property
    def is_on(self) -> bool:
        """Return whether mixup or CutMix is on."""
        return max(self.mixup, self.cutmix) > 0

    def __call__(self, batch: Batch, *, seed: int, epoch: int, num_classes: int) -> Batch:
        """Return `batch` with images 2k and 2k + 1 mixed, and labels [batch, num_classes].

        The mixture depends on (seed, epoch) and the index and copy of the pair's first image. The
        result has no frames, since each image mixes two sources. Raises ValueError if `batch` has
        views.
        """
        if batch.views:
            raise ValueError(
                f"mixup and cutmix give the images labels that do not fit their views "
                f"({', '.join(batch.views)}): leave data.views out, or mixing"
            )
        from timm.data.mixup import Mixup  # seconds to import

        assert batch.indices is not None
        assert batch.copies is not None
        mix = Mixup(
            mixup_alpha=self.mixup,
            cutmix_alpha=self.cutmix,
            prob=self.probability,
            switch_prob=self.switch_probability,
            label_smoothing=0.0,  # the loss smooths labels
            num_classes=num_classes,
        )
        images = unit_range(batch.images).clone()
        labels = torch.empty(len(batch), num_classes)
        firsts = zip(batch.indices[::2].tolist(), batch.copies[::2].tolist(), strict=True)
        with kept_streams():
            for number, (index, copy) in enumerate(firsts):
                pair = slice(2 * number, 2 * number + 2)
                seed_streams(*image_key(seed, epoch, index, copy), "mixing")
                images[pair], labels[pair] = mix(images[pair], batch.labels[pair])
        # rounded shares may sum to slightly more than 1
        return replace(batch, images=images.clamp_(0, 1), labels=labels, frames=None)


def with_versions(
    batch: Batch, *, versions: Mapping[str, AugMixed], seed: int, epoch: int
) -> Batch:
    """Return the batch with further views of its images: one by AugMix for each of `versions`.

    Random numbers depend only on (seed, epoch), the image's index and copy, and the view's name.
    """
    assert batch.indices is not None
    assert batch.copies is not None
    augmenting = {name: _augmix(version) for name, version in versions.items()}
    pixels = in_bytes(batch.images)
    views = {name: torch.empty_like(pixels) for name in augmenting}
    keys = zip(batch.indices.tolist(), batch.copies.tolist(), strict=True)
    with kept_streams():
        for row, (index, copy) in enumerate(keys):
            image = to_pil_image(pixels[row])
            for name, augment in augmenting.items():
                seed_streams(*image_key(seed, epoch, index, copy), name)
                views[name][row] = pil_to_tensor(augment(image))
    return replace(batch, views={**batch.views, **views})


def _augmix(version: AugMixed) -> Any:
    """Return timm's AugMix as in the paper: bilinear, black outside, shifts up to a third."""
    from timm.data.auto_augment import AugMixAugment, augmix_ops  # seconds to import

    as_in_paper = {
        "magnitude_std": float("inf"),  # uniform up to `severity`
        "translate_pct": 1 / 3,
        "img_mean": 0,
        "interpolation": Image.Resampling.BILINEAR,
    }
    operations = augmix_ops(version.severity, as_in_paper, list(_OPERATIONS))
    return AugMixAugment(operations, version.alpha, version.width, version.depth or -1)
