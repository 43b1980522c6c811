"""torchvision's detectors: labels go into the model, losses come out, in training mode only."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tiny import gradients, modes, seeded
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator

from advprop.attacks.objectives import untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.branches import attack_mode
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.fast import Fast
from advprop.methods.mixed import Mixed
from advprop.methods.step import Context, adversarial_images
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch
from advprop.tasks.task import Task

SIZE = 32
ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=2, step_size=4 / 255, targets=untargeted)


class Detection(Task):
    """All losses of a detector are learnt; attacks raise those that are named."""

    splits = False
    needs_training_mode = True

    def __init__(self, *attacked: str) -> None:
        self.attacked = attacked

    def outputs(self, model: nn.Module, images: Tensor, labels: list[Any]) -> dict[str, Tensor]:
        return model(list(images), labels)

    def loss(self, outputs: dict[str, Tensor], labels: list[Any]) -> Tensor:
        return torch.stack([*outputs.values()]).sum()

    def attacked_loss(self, outputs: dict[str, Tensor], labels: list[Any]) -> Tensor:
        chosen = {name: outputs[name] for name in self.attacked or outputs}
        return self.loss(chosen, labels)

    def metrics(self, outputs: dict[str, Tensor], labels: list[Any]) -> Mapping[str, Tensor]:
        return {name: loss.detach() for name, loss in outputs.items()}


def detector() -> nn.Module:
    torch.manual_seed(0)
    backbone = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3),
        nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(),
    )  # fmt: skip
    backbone.out_channels = 8
    return FasterRCNN(
        backbone,
        num_classes=3,
        min_size=SIZE,
        max_size=SIZE,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        rpn_anchor_generator=AnchorGenerator(sizes=((12,),), aspect_ratios=((1.0,),)),
        # all anchors and boxes take part, so that nothing is drawn
        rpn_batch_size_per_image=10_000,
        rpn_positive_fraction=1.0,
        box_batch_size_per_image=10_000,
        box_positive_fraction=1.0,
    ).train()


def pictures() -> Batch:
    """Four pictures of one or two bright squares each."""
    images = 0.4 * torch.rand(4, 3, SIZE, SIZE, generator=seeded()) + 0.2
    labels = []
    for number, image in enumerate(images):
        corners = [(4, 6), (18, 16)][: 1 + number % 2]
        for top, left in corners:
            image[number % 2, top : top + 10, left : left + 10] = 0.8
        boxes = torch.tensor([[left, top, left + 10, top + 10] for top, left in corners])
        classes = torch.full((len(corners),), 1 + number % 2)
        labels.append({"boxes": boxes.float(), "labels": classes})
    return Batch(images=images, labels=labels)


METHODS: dict[str, Method] = {
    "vanilla": Vanilla(),
    "mixed": Mixed(attack=ATTACK),
    "advprop": AdvProp(attack=ATTACK),
    "advprop summed": AdvProp(attack=ATTACK, form="summed"),
    "fast": Fast(threat_model=Linf(8 / 255), attacked_fraction=0.5),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_detector_learns(method: Method) -> None:
    model = detector()
    if method.auxiliary:
        add_auxiliary_norms(model)
    found, batch, context = modes(model), pictures(), Context(task=Detection(), generator=seeded())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        metrics = method.forward_backward(model, batch, context)
        assert all(gradient is not None for gradient in gradients(model).values())
        optimizer.step()
        losses.append(metrics.loss.item())
    assert losses[-1] < losses[0]
    assert modes(model) == found
    for kind in metrics.kinds.values():
        assert {"loss_classifier", "loss_rpn_box_reg"} < {*kind.metrics}
    plain = remove_auxiliary_norms(model) if method.auxiliary else model
    (detections, *_) = plain.eval()(list(batch.images))
    assert {*detections} == {"boxes", "labels", "scores"}


@pytest.mark.parametrize(
    "attacked",
    ["loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"],
)
def test_the_loss_that_is_named_is_attacked(attacked: str) -> None:
    model, batch = detector(), pictures()
    before = copy.deepcopy(model.state_dict())
    found = adversarial_images(ATTACK, model, batch, Context(task=Detection(attacked)))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(gradient is None for gradient in gradients(model).values())
    assert 0 < (found - batch.images).abs().max() <= 8 / 255 + 1e-6
    with attack_mode(model, layers_only=True), torch.no_grad():
        clean, raised = (model(list(images), batch.labels) for images in (batch.images, found))
    assert raised[attacked] > clean[attacked]


def test_layers_are_in_eval_mode_while_a_detector_is_attacked() -> None:
    model = detector()
    with attack_mode(model, layers_only=True):
        training = {type(layer).__name__ for layer in model.modules() if layer.training}
        assert {"FasterRCNN", "RegionProposalNetwork", "RoIHeads"} < training
        assert not training & {"BatchNorm2d", "Dropout", "Conv2d"}
    assert all(layer.training for layer in model.modules())
