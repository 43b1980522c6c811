"""A segmentation net learns with AdvProp, beside vanilla at equal cost: mean overlap of classes.

    pip install -e ".[demo,corruptions]"
    python examples/segmentation.py

trains torchvision's Lite R-ASPP on pictures of `composed_pictures.py`, without weights to start
from, and prints a table. The attack raises the mean cross-entropy of pixels. `docs/reproducing.md`
(18) has the results.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from beside_vanilla import Scores, compare, parser
from composed_pictures import DIGITS, Pictures
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassJaccardIndex
from torchvision.models.segmentation import lraspp_mobilenet_v3_large

import advprop

NUM_CLASSES = len(DIGITS) + 1


class Segmentation(advprop.Task):
    """A class for each pixel."""

    def outputs(self, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        return model(images)["out"]

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels)


class Segmenter:
    task = Segmentation()
    score_name = "IoU, mean over digits"
    extra_passes = 0.0

    def build(self, side: int) -> nn.Module:
        net = lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=NUM_CLASSES
        )
        return advprop.standardized(net, mean=[0.5] * 3, std=[0.5] * 3)

    def labels(self, pictures: Pictures) -> Tensor:
        return pictures.masks

    def score(self, model: nn.Module, pictures: Pictures) -> float:
        overlap = MulticlassJaccardIndex(NUM_CLASSES, average=None)
        with torch.no_grad():
            for some in pictures.batches(50):
                overlap.update(model(some.images)["out"], some.masks)
        return overlap.compute()[1:].mean().item()


def main(arguments: Sequence[str] | None = None) -> Scores:
    return compare(Segmenter(), parser(__doc__, epochs=8, batch=8).parse_args(arguments))


if __name__ == "__main__":
    main()
