"""Further versions of a batch's images, which a method asks the loader for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from advprop.randomness import image_key, kept_streams, seed_streams
from advprop.shapes import AugMixed, Batch, in_bytes

# Pillow's operations in the paper's code, by timm's names; timm's own list has four more, which
# resemble corruptions that models are tested with
_OPERATIONS = (
    *("AutoContrast", "Equalize", "Rotate", "PosterizeIncreasing", "SolarizeIncreasing"),
    *("ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)


@dataclass(frozen=True, kw_only=True)
class Versions:
    """Makes `versions` of a batch's images, by their names in `Batch.views`.

    What it draws depends on (seed, epoch), the index and copy of an image and the name alone.
    """

    versions: Mapping[str, AugMixed]
    seed: int
    epoch: int

    def __call__(self, batch: Batch) -> Batch:
        """The same batch with these views beside those that it has."""
        assert batch.indices is not None
        assert batch.copies is not None
        augmenting = {name: _augmix(version) for name, version in self.versions.items()}
        pixels = in_bytes(batch.images)
        views = {name: torch.empty_like(pixels) for name in augmenting}
        keys = zip(batch.indices.tolist(), batch.copies.tolist(), strict=True)
        with kept_streams():
            for row, (index, copy) in enumerate(keys):
                image = to_pil_image(pixels[row])
                for name, augment in augmenting.items():
                    seed_streams(*image_key(self.seed, self.epoch, index, copy), name)
                    views[name][row] = pil_to_tensor(augment(image))
        return replace(batch, views={**batch.views, **views})


def _augmix(version: AugMixed) -> Any:
    """AugMix of timm with the paper's operations: bilinear, black outside, a third of the edge."""
    from timm.data.auto_augment import AugMixAugment, augmix_ops  # seconds to import

    as_in_paper = {
        "magnitude_std": float("inf"),  # uniform up to `severity`
        "translate_pct": 1 / 3,
        "img_mean": 0,
        "interpolation": Image.Resampling.BILINEAR,
    }
    operations = augmix_ops(version.severity, as_in_paper, list(_OPERATIONS))
    return AugMixAugment(operations, version.alpha, version.width, version.depth or -1)
