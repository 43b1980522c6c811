"""Digits, a small net and methods without randomness, for every bridge."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from advprop.attacks.objectives import untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.route import has_auxiliary_norms
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms
from advprop.data.sets.builtin import load_builtin
from advprop.exports.export import load_export, write_export
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.fast import Fast
from advprop.methods.mixed import Mixed
from advprop.methods.step import Context
from advprop.methods.vanilla import Vanilla
from advprop.models.build import build_model
from advprop.models.standardize import Standardized
from advprop.shapes import Images, Labels

ATTACK = PGD(
    threat_model=Linf(0.1),
    num_steps=1,
    step_size=0.1,
    random_start_probability=0.0,
    targets=untargeted,
)
ADVPROP = AdvProp(attack=ATTACK)
METHODS: dict[str, Method] = {
    "vanilla": Vanilla(),
    "mixed": Mixed(attack=ATTACK),
    "advprop": ADVPROP,
    "advprop joint": dataclasses.replace(ADVPROP, form="joint"),
}
REFUSED = Fast(threat_model=Linf(0.1))
BATCH_SIZE = 32


class Changing(AdversarialThenClean):
    """Notes the progress of each step, and then learns from clean images."""

    def step(self, model: nn.Module, batch: object, context: Context):
        SEEN.append((context.progress, context.step, context.epoch))
        return Vanilla().step(model, batch, context)


SEEN: list[tuple[float, int, int | None]] = []


def digits(count: int = 128, *, validation: bool = False) -> tuple[Images, Labels]:
    """Real digits in [0, 1], of shape [count, 1, 8, 8]."""
    data = load_builtin("digits")
    split = data.validation if validation else data.train
    return split.pixels[:count].float() / split.brightest, split.labels[:count]


def batches(count: int = 128) -> list[tuple[Images, Labels]]:
    """The same digits cut into batches."""
    images, labels = digits(count)
    return list(zip(images.split(BATCH_SIZE), labels.split(BATCH_SIZE), strict=True))


def net(*, branches: bool = True) -> Standardized:
    """A small residual net, always with the same weights."""
    torch.manual_seed(0)
    model = build_model(
        "small_resnet", num_classes=10, in_chans=1, width=4, stem_stride=1, mean=[0.3], std=[0.4]
    )
    return add_auxiliary_norms(model) if branches else model


def gradients_by_hand(
    method: Method, model: nn.Module, *parts: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """What `forward_backward` on each part leaves in a copy of `model`, summed."""
    model = copy.deepcopy(model).train()
    for images, labels in parts:
        method.forward_backward(model, images, labels)
    return gradients_of(model)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of what lies in `.grad`."""
    return {
        name: parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the weights and statistics."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def accuracy(model: nn.Module) -> float:
    """Share of validation digits that the clean branch gets right."""
    images, labels = digits(200, validation=True)
    with torch.no_grad():
        return float((model.eval()(images).argmax(dim=1) == labels).float().mean())


def check_removed_and_exported(model: Standardized, folder: Path) -> None:
    """A plain model remains, of the architecture of before, and it survives an export."""
    images, _ = digits(8)
    with torch.no_grad():
        expected = model.eval()(images)
    plain = remove_auxiliary_norms(model)
    assert plain.state_dict().keys() == net(branches=False).state_dict().keys()
    assert not has_auxiliary_norms(plain)
    data = load_builtin("digits")
    write_export(plain, folder, class_names=data.class_names, preprocessing=data.preprocessing)
    with torch.no_grad():
        assert torch.equal(plain(images), expected)
        torch.testing.assert_close(load_export(folder).model(images), expected)
