"""Plain models between two branches."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable

import pytest
import torch
from branch_nets import branched, move, same, small_net, snapshot, some_images
from tiny import modes, tiny_vit
from torch import nn
from torch.optim.swa_utils import update_bn

from advprop.auxiliary.route import has_auxiliary_norms
from advprop.auxiliary.soup import mix_branches
from advprop.auxiliary.surgery import remove_auxiliary_norms
from advprop.auxiliary.token import AuxiliaryToken, add_auxiliary_tokens

BATCHES = [some_images(6, seed=1), some_images(6, seed=2), some_images(4, seed=3)]


def batch_norm(auxiliary: tuple[str, ...] = ("adversarial",)) -> nn.Module:
    return branched(small_net(dropout=0.5), auxiliary)


def group_norm() -> nn.Module:
    net = small_net()
    net[1] = nn.GroupNorm(3, 6)
    return branched(net)


def class_token() -> nn.Module:
    model = add_auxiliary_tokens(tiny_vit())
    token = next(layer for layer in model.modules() if isinstance(layer, AuxiliaryToken))
    move(token.branches["adversarial"], seed=3)
    return model


def plain(model: nn.Module, keep: str) -> nn.Module:
    return remove_auxiliary_norms(copy.deepcopy(model), keep=keep)


@torch.no_grad()
def interpolated(model: nn.Module, weight: float, branch: str = "adversarial") -> nn.Module:
    """The parameters as the formula has them, the clean branch's statistics."""
    net, other = plain(model, "clean"), dict(plain(model, branch).named_parameters())
    for name, parameter in net.named_parameters():
        parameter.copy_((1 - weight) * parameter + weight * other[name])
    return net


@pytest.mark.parametrize("build", [batch_norm, group_norm, class_token])
def test_weight_0_is_the_clean_branch_bit_for_bit(build: Callable[[], nn.Module]) -> None:
    model = build()
    mixed, clean = mix_branches(model, 0, images=BATCHES), plain(model, "clean")
    assert same(snapshot(mixed), snapshot(clean))
    assert not has_auxiliary_norms(mixed)
    assert str(mixed) == str(clean)


@pytest.mark.parametrize("build", [group_norm, class_token])
def test_without_statistics_weight_1_is_the_auxiliary_branch(
    build: Callable[[], nn.Module],
) -> None:
    model = build()
    assert same(snapshot(mix_branches(model, 1)), snapshot(plain(model, "adversarial")))
    between, expected = mix_branches(model, 0.25), interpolated(model, 0.25)
    for name, tensor in between.state_dict().items():
        torch.testing.assert_close(tensor, expected.state_dict()[name])
    with torch.no_grad():
        logits = [net.eval()(BATCHES[0]) for net in (mix_branches(model, 0), between)]
    assert (logits[0] - logits[1]).abs().max() > 1e-4


@pytest.mark.parametrize("weight", [0.25, 1])
def test_statistics_are_those_of_the_images_as_torch_estimates_them(weight: float) -> None:
    model = batch_norm()
    mixed = mix_branches(model, weight, images=iter(BATCHES))
    expected = interpolated(model, weight)
    expected[8] = nn.Identity()  # torch's own goes through dropout in train mode
    update_bn(BATCHES, expected)
    for name, tensor in expected.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(mixed.state_dict()[name], tensor)
    assert mixed[1].momentum == 0.1


def test_one_batch_gives_its_own_mean_and_variance() -> None:
    model = batch_norm()
    mixed = mix_branches(model, 1, images=BATCHES[:1])
    with torch.no_grad():
        seen = mixed[0](BATCHES[0])
    torch.testing.assert_close(mixed[1].running_mean, seen.mean(dim=(0, 2, 3)))
    torch.testing.assert_close(mixed[1].running_var, seen.var(dim=(0, 2, 3)))
    assert torch.equal(mixed[1].weight, plain(model, "adversarial")[1].weight)


def test_the_branch_is_the_first_auxiliary_one_or_that_which_is_named() -> None:
    model = batch_norm(("weak", "strong"))
    by_default, named = (
        mix_branches(model, 1, branch=branch, images=BATCHES)[4].weight for branch in (None, "weak")
    )
    strong = mix_branches(model, 1, branch="strong", images=BATCHES)[4].weight
    assert torch.equal(by_default, named)
    assert torch.equal(strong, plain(model, "strong")[4].weight)
    assert not torch.equal(strong, named)


def test_the_model_stays_as_it_is() -> None:
    model = batch_norm().train()
    before, flags = snapshot(model), modes(model)
    mixed = mix_branches(model, 0.5, images=BATCHES)
    assert same(snapshot(model), before)
    assert modes(model) == flags
    assert modes(mixed) == modes(plain(model, "clean"))


@pytest.mark.parametrize(
    ("model", "weight", "branch", "message"),
    [
        (batch_norm(), -0.1, None, "weight=-0.1: must be from 0"),
        (batch_norm(), 1.5, None, "weight=1.5: must be from 0"),
        (batch_norm(), float("nan"), None, "weight=nan: must be from 0"),
        (batch_norm(), 0.5, "aux", 'branch "aux" unknown'),
        (batch_norm(), 0.5, None, "no images: layers of the model keep"),
        (small_net(), 0.5, None, "no auxiliary branches"),
    ],
)
def test_what_cannot_be_mixed_is_refused(
    model: nn.Module, weight: float, branch: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        mix_branches(model, weight, branch=branch)
