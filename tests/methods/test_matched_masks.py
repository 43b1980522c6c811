"""Matched masks: an image meets the same dropout and drop-path in both of its passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.layers import DropPath
from tiny import (
    gradients,
    same_tensors,
    seeded,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_vit,
)
from torch import Tensor, nn

from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.methods.advprop import AdvProp
from advprop.methods.step import Context, StepMetrics
from advprop.randomness import mark_dropout

ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=2, step_size=6 / 255)
NO_ATTACK = PGD(threat_model=Linf(0.0), num_steps=1, step_size=0.1)
DROP = 0.4

forms = pytest.mark.parametrize("form", ["separate", "summed"])


def net(drop: float = DROP) -> nn.Module:
    """A small vision transformer with branches, in training mode."""
    return add_auxiliary_norms(tiny_vit(drop=drop)).train()


def step(method: AdvProp, model: nn.Module, **context: Any) -> StepMetrics:
    torch.manual_seed(7)  # as the trainer does it
    context = Context(generator=seeded(), **context)
    return method.forward_backward(model, tiny_images(), tiny_labels(), context)


def training_logits(method: AdvProp, model: nn.Module) -> list[Tensor]:
    """The logits of the passes that train, in order."""
    found: list[Tensor] = []

    def remember(module: nn.Module, _: Any, logits: Tensor) -> None:
        if module.training:
            found.append(logits.detach().clone())

    model.register_forward_hook(remember)
    step(method, model)
    assert len(found) == 2
    return found


def masks_of(method: AdvProp, model: nn.Module) -> list[list[Tensor]]:
    """For each pass that trains, what every layer that drops something let through."""
    passes: list[list[Tensor]] = []

    def begin(module: nn.Module, _: Any) -> None:
        if module.training:
            passes.append([])

    def remember(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if model.training:
            passes[-1].append((output != 0) | (inputs[0] == 0))

    model.register_forward_pre_hook(begin)
    for layer in model.modules():
        if isinstance(layer, DropPath | nn.Dropout):
            layer.register_forward_hook(remember)
    step(method, model)
    return passes


@forms
@pytest.mark.parametrize("matched", [True, False])
def test_equal_images_have_equal_logits_where_masks_are_matched(form: str, matched: bool) -> None:
    method = AdvProp(attack=NO_ATTACK, form=form, matched_masks=matched)
    clean, adversarial = training_logits(method, net())
    assert torch.equal(clean, adversarial) == matched


@forms
@pytest.mark.parametrize("matched", [True, False])
def test_same_seed_same_drops(form: str, matched: bool) -> None:
    """Of other images too: each mask of one pass is a mask of the other."""
    method = AdvProp(attack=ATTACK, form=form, matched_masks=matched)
    clean, adversarial = masks_of(method, net())
    assert len(clean) == len(adversarial) == 10  # 8 of dropout, 2 of drop-path
    assert not any(mask.all() for mask in clean)
    equal = {torch.equal(a, b) for a, b in zip(clean, adversarial, strict=True)}
    assert equal == {matched}


@forms
def test_convolutional_nets_too(form: str) -> None:
    method = AdvProp(attack=ATTACK, form=form, matched_masks=True)
    clean, adversarial = masks_of(method, tiny_branched_net(dropout=0.5).train())
    assert torch.equal(clean[0], adversarial[0])
    assert not clean[0].all()


@forms
def test_the_streams_stand_as_after_one_pass(form: str) -> None:
    model = net()
    step(AdvProp(attack=ATTACK, form=form, matched_masks=True), model)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    model(tiny_images())
    assert torch.equal(after, torch.get_rng_state())


@forms
def test_the_attack_draws_no_masks(form: str) -> None:
    """Its images are those of a net without dropout, and the first pass draws as it would alone."""
    found: dict[float, Tensor] = {}

    def remembering(drop: float) -> Callable[..., Tensor]:
        def attack(*args: Any, **kwargs: Any) -> Tensor:
            found[drop] = ATTACK(*args, **kwargs)
            return found[drop]

        attack.passes_per_image = ATTACK.passes_per_image  # type: ignore[attr-defined]
        return attack

    for drop in (0.0, DROP):
        method = AdvProp(attack=remembering(drop), form=form, matched_masks=True)
        clean, _ = training_logits(method, net(drop))
    assert torch.equal(found[0.0], found[DROP])
    model = net()
    torch.manual_seed(7)
    assert torch.equal(clean, model(tiny_images()))


@forms
def test_without_masks_there_is_nothing_to_match(form: str) -> None:
    found = []
    for matched in (True, False):
        model = net(drop=0.0)
        step(AdvProp(attack=ATTACK, form=form, matched_masks=matched), model)
        found.append(gradients(model))
    assert same_tensors(*found)


@pytest.mark.parametrize("matched", [True, False])
def test_two_backwards_and_one_agree(matched: bool) -> None:
    found = []
    for form in ("separate", "summed"):
        model = net()
        metrics = step(AdvProp(attack=ATTACK, form=form, matched_masks=matched), model)
        found.append((gradients(model), metrics.loss))
    for name, gradient in found[0][0].items():
        torch.testing.assert_close(found[1][0][name], gradient)
    assert torch.equal(found[0][1], found[1][1])


# --- activation checkpointing


def test_recomputed_layers_draw_their_own_masks_again() -> None:
    found = []
    for checkpointing in (False, True):
        model = net()
        model.set_grad_checkpointing(checkpointing)
        step(AdvProp(attack=ATTACK, matched_masks=True), model)
        found.append((gradients(model), torch.get_rng_state()))
    assert same_tensors(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_one_backward_over_two_branches_recomputes_nothing() -> None:
    """A layer that runs again could not know through which branch: an error, not a wrong one."""
    model = net()
    model.set_grad_checkpointing(True)
    with pytest.raises(RuntimeError, match=r'form="separate" or form="joint", or switch'):
        step(AdvProp(attack=ATTACK, form="summed"), model)
    with use_branch(model, "clean"):  # and afterwards all is as before
        assert model(tiny_images()).isfinite().all()


# --- what is refused


def test_a_joint_pass_cannot_match() -> None:
    with pytest.raises(ValueError, match=r'matched_masks with form="joint".*"summed"'):
        AdvProp(attack=ATTACK, form="joint", matched_masks=True)


def test_several_devices_of_one_process_cannot_match() -> None:
    model = nn.DataParallel(net())
    with pytest.raises(ValueError, match="matched_masks under DataParallel"):
        step(AdvProp(attack=ATTACK, matched_masks=True), model)
    step(AdvProp(attack=ATTACK), model)


def test_marks_are_of_streams_not_of_places() -> None:
    """A mark may be used again, whatever was drawn since; no other generator moves."""
    other = seeded()
    redraw = mark_dropout(torch.device("cpu"))
    first = torch.rand(3)
    torch.rand(100, generator=other)
    moved = other.get_state()
    for _ in range(2):
        redraw()
        assert torch.equal(torch.rand(3), first)
    assert torch.equal(other.get_state(), moved)
    mark_dropout(torch.device("meta"))()  # where costs are counted there are no streams
