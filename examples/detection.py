"""A detector learns with AdvProp, beside vanilla at equal cost: mean average precision.

    pip install -e ".[demo,corruptions]" pycocotools
    python examples/detection.py --attack stronger

trains torchvision's SSDlite on pictures of `composed_pictures.py`, without weights to start from,
and prints a table. The attack raises the loss of the classes, that of the boxes, or, for each
picture, does whichever of both loses more (Det-AdvProp, Chen et al., CVPR 2021, arXiv 2103.13886).
`docs/reproducing.md` (18) has what was measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from beside_vanilla import Scores, compare, parser
from composed_pictures import DIGITS, Boxes, Pictures
from torch import Tensor, nn
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import ssdlite320_mobilenet_v3_large
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform

import advprop
from advprop.randomness import Randomness

Losses = dict[str, Tensor]
LOSSES = {"classification": "classification", "localisation": "bbox_regression"}


@dataclass(frozen=True)
class Detection(advprop.Task):
    """Both losses are learnt, and `attacked` is what attacks raise."""

    attacked: str
    splits = False
    needs_training_mode = True

    def outputs(self, model: nn.Module, images: Tensor, labels: Boxes) -> Losses:
        return model(list(images), labels)

    def loss(self, outputs: Losses, labels: Boxes) -> Tensor:
        return sum(outputs.values())

    def attacked_loss(self, outputs: Losses, labels: Boxes) -> Tensor:
        return outputs[LOSSES[self.attacked]]

    def metrics(self, outputs: Losses, labels: Boxes) -> Losses:
        return {name: outputs[loss].detach() for name, loss in LOSSES.items()}


class StrongerDetection(Detection):
    """Each picture is attacked in both ways, and stays as the one that raises its loss more."""

    def adversarial_images(
        self, attack: advprop.PGD, model: nn.Module, batch: advprop.Batch, generator: Randomness
    ) -> Tensor:
        found = torch.stack(
            [
                Detection(attacked).adversarial_images(attack, model, batch, generator)
                for attacked in LOSSES
            ]
        )
        with torch.no_grad():
            raised = [
                [self.loss(self.outputs(model, image[None], [label]), [label]) for image in attacks]
                for attacks, label in zip(found.unbind(1), batch.labels, strict=True)
            ]
        stronger = torch.tensor(raised).argmax(1)
        return found[stronger, torch.arange(len(stronger))]


class Detector:
    score_name = "mAP at an overlap of 0.5"

    def __init__(self, attack: str) -> None:
        self.task = StrongerDetection(attack) if attack == "stronger" else Detection(attack)
        # a second attack step, and two forward passes, a third of a pass each
        self.extra_passes = 1 + 2 / 3 if attack == "stronger" else 0.0

    def build(self, side: int) -> nn.Module:
        model = ssdlite320_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=len(DIGITS) + 1
        )
        half = [0.5] * 3
        model.transform = GeneralizedRCNNTransform(
            side, side, half, half, size_divisible=1, fixed_size=(side, side)
        )
        # boxes of the digits' sizes, most of them from the finest features
        model.anchor_generator = DefaultBoxGenerator([[2, 3]] * 6, min_ratio=0.4, max_ratio=0.95)
        for layer in model.backbone.modules():
            if isinstance(layer, nn.Conv2d):
                layer.reset_parameters()  # torchvision's start is for long training
        return model

    def labels(self, pictures: Pictures) -> Boxes:
        return pictures.boxes

    def score(self, model: nn.Module, pictures: Pictures) -> float:
        precision = MeanAveragePrecision(iou_thresholds=[0.5])
        precision.warn_on_many_detections = False
        with torch.no_grad():
            for some in pictures.batches(50):
                precision.update(model(list(some.images)), some.boxes)
        return precision.compute()["map_50"].item()


def main(arguments: Sequence[str] | None = None) -> Scores:
    options = parser(__doc__, epochs=12, batch=16)
    options.add_argument("--attack", choices=[*LOSSES, "stronger"], default="stronger")
    chosen = options.parse_args(arguments)
    return compare(Detector(chosen.attack), chosen)


if __name__ == "__main__":
    main()
