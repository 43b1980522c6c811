"""Which form "auto" is, by what branches share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import FrozenBatchNormAct2d
from tiny import (
    IMAGE_SHAPE,
    gradients,
    same_tensors,
    seeded,
    tiny_images,
    tiny_labels,
    tiny_net,
    tiny_vit,
)
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary import branches
from advprop.auxiliary.branches import shares_statistics
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.auxiliary.token import add_auxiliary_tokens
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.fine_grained import FineGrained
from advprop.methods.step import Context
from advprop.shapes import Batch

ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=1, step_size=6 / 255)
METHODS: dict[str, Callable[..., Method]] = {
    "advprop": lambda **form: AdvProp(attack=ATTACK, **form),
    "fine_grained": lambda **form: FineGrained(attacks={"adversarial": ATTACK}, **form),
}


def partly_branched() -> nn.Module:
    """Its LayerNorm has branches, a BatchNorm that came later has none."""
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LayerNorm(144))
    model[3] = add_auxiliary_norms(model[3])
    return model.append(nn.Linear(144, 5))


def frozen(layer: nn.Module) -> nn.Module:
    return add_auxiliary_norms(
        nn.Sequential(layer, nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 5))
    )


SHARING: dict[str, Callable[[], nn.Module]] = {
    "affine": lambda: add_auxiliary_norms(tiny_net(), separate="affine"),
    "another layer": partly_branched,
}
NOT_SHARING: dict[str, Callable[[], nn.Module]] = {
    "both": lambda: add_auxiliary_norms(tiny_net()),
    "statistics": lambda: add_auxiliary_norms(tiny_net(), separate="statistics"),
    "affine of LayerNorm": lambda: add_auxiliary_norms(tiny_vit(), separate="affine"),
    "tokens": lambda: add_auxiliary_tokens(tiny_vit()),
    "frozen": lambda: frozen(FrozenBatchNorm2d(3)),
    "frozen of timm": lambda: frozen(FrozenBatchNormAct2d(3, apply_act=False)),
}


def trained(method: Method, model: nn.Module) -> dict[str, Any]:
    """Gradients and running statistics after one step."""
    torch.manual_seed(0)
    method.prepare(TrainingFacts(num_images=8, image_shape=IMAGE_SHAPE))
    batch = Batch(images=tiny_images(), labels=tiny_labels(), indices=torch.arange(8))
    method.forward_backward(model.train(), batch, Context(epoch=0, generator=seeded()))
    return {**gradients(model), **dict(model.named_buffers())}


@pytest.mark.parametrize("build", SHARING.values(), ids=SHARING)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_auto_is_joint_where_branches_share_statistics(
    method: Callable[..., Method], build: Callable[[], nn.Module]
) -> None:
    auto, joint, separate = (
        trained(method(form=form), seeded_model(build)) for form in ("auto", "joint", "separate")
    )
    assert same_tensors(auto, joint)
    assert not same_tensors(auto, separate)


def seeded_model(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


@pytest.mark.parametrize("build", NOT_SHARING.values(), ids=NOT_SHARING)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_auto_is_separate_elsewhere(
    method: Callable[..., Method], build: Callable[[], nn.Module]
) -> None:
    """One graph in memory at a time."""
    auto, separate = (
        trained(method(form=form), seeded_model(build)) for form in ("auto", "separate")
    )
    assert same_tensors(auto, separate)


def test_matched_masks_keep_two_passes() -> None:
    auto, separate = (
        trained(AdvProp(attack=ATTACK, matched_masks=True, form=form), SHARING["affine"]())
        for form in ("auto", "separate")
    )
    assert same_tensors(auto, separate)


def test_one_pass_is_not_chosen_where_it_cannot_be() -> None:
    model = SHARING["affine"]()
    method = AdvProp(attack=ATTACK)
    assert method.form_for(model) == "joint"
    assert method.form_for(nn.DataParallel(model)) == "separate"
    assert method.form_for(add_auxiliary_tokens(VitWithBatchNorm())) == "separate"


class VitWithBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.body = nn.BatchNorm2d(3), tiny_vit()


def test_modules_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = SHARING["affine"]()
    assert shares_statistics(model)
    monkeypatch.delattr(branches, "has_shared_statistics")
    assert shares_statistics(model)
