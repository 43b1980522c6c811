"""`method.loss`: the loss with its graph, for a backward pass of the caller's own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from case import Case
from method_cases import CASES
from tiny import (
    IMAGE_SHAPE,
    gradients,
    same_tensors,
    seeded,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_net,
    with_views,
)
from torch import nn
from torch.utils.checkpoint import checkpoint

from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.branches import branch_names
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.learning import SeveralKinds
from advprop.methods.step import Context
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch

ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=2, step_size=6 / 255)
WITH_LOSS = {name: case for name, case in CASES.items() if not case.method.needs_backward}
WITHOUT = {name: case for name, case in CASES.items() if case.method.needs_backward}


def net_for(method: Method) -> nn.Module:
    options = {"dropout": 0.3}
    if not method.auxiliary:
        return tiny_net(**options).train()
    return tiny_branched_net(auxiliary=method.auxiliary, **options).train()


def given(case: Case) -> tuple[Batch, Context]:
    torch.manual_seed(3)  # of dropout
    batch = Batch(images=tiny_images(), labels=tiny_labels(), indices=torch.arange(8))
    return with_views(batch, case.method.views), Context(progress=case.progress, generator=seeded())


def in_one_backward(method: Method, model: nn.Module) -> Method:
    """The same with one backward pass, where its form in one process has several."""
    separate = isinstance(method, SeveralKinds) and method.form_for(model) == "separate"
    return dataclasses.replace(method, form="summed") if separate else method


@pytest.mark.parametrize("case", WITH_LOSS.values(), ids=WITH_LOSS)
def test_gradients_are_those_of_forward_backward(case: Case) -> None:
    own, ours = net_for(case.method), net_for(case.method)
    loss = case.method.loss(own, *given(case))
    assert all(parameter.grad is None for parameter in own.parameters())
    loss.backward()
    metrics = in_one_backward(case.method, ours).forward_backward(ours, *given(case))
    assert loss.shape == ()
    assert torch.equal(loss.detach(), metrics.loss)
    assert same_tensors(gradients(own), gradients(ours))
    assert same_tensors(dict(own.named_buffers()), dict(ours.named_buffers()))


def test_of_two_kinds_they_are_those_of_the_separate_form_too() -> None:
    own, ours = tiny_branched_net().train(), tiny_branched_net().train()
    method = AdvProp(attack=ATTACK, form="separate")
    method.loss(own, tiny_images(), tiny_labels(), Context(generator=seeded())).backward()
    method.forward_backward(ours, tiny_images(), tiny_labels(), Context(generator=seeded()))
    assert same_tensors(gradients(own), gradients(ours))


@pytest.mark.parametrize("case", WITHOUT.values(), ids=WITHOUT)
def test_a_method_that_needs_its_backward_passes_refuses_by_name(case: Case) -> None:
    method = dataclasses.replace(case.method)
    method.prepare(TrainingFacts(num_images=8, image_shape=IMAGE_SHAPE))
    name = type(method).__name__
    with pytest.raises(ValueError, match=rf"{name} uses .* call method\.forward_backward"):
        method.loss(net_for(method), *given(case))


def test_a_scaled_loss_scales_the_gradients() -> None:
    own, ours = tiny_net().train(), tiny_net().train()
    (4 * Vanilla().loss(own, tiny_images(), tiny_labels())).backward()
    Vanilla().forward_backward(ours, tiny_images(), tiny_labels())
    found, expected = gradients(own), gradients(ours)
    assert all(torch.equal(found[name], 4 * expected[name]) for name in expected)


@pytest.mark.parametrize("of_logits", [False, True], ids=["eval", "labels"])
def test_mistakes_are_refused_as_forward_backward_does(of_logits: bool) -> None:
    if of_logits:
        with pytest.raises(TypeError, match="labels are missing"):
            Vanilla().loss(tiny_net().train(), tiny_images())
        return
    with pytest.raises(ValueError, match="the model is in eval mode"):
        Vanilla().loss(tiny_net().eval(), tiny_images(), tiny_labels())


class Checkpointed(nn.Module):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return checkpoint(self.net, images, use_reentrant=False)


@pytest.mark.parametrize("form", ["separate", "joint"])
def test_activation_checkpointing_is_refused_where_it_would_take_a_wrong_branch(form: str) -> None:
    model = Checkpointed(tiny_branched_net()).train()
    method = AdvProp(attack=ATTACK, form=form)
    loss = method.loss(model, tiny_images(), tiny_labels())
    with pytest.raises(RuntimeError, match=r"call method\.forward_backward, or switch"):
        loss.backward()
    # and nothing stays behind
    assert branch_names(model) == ("clean", "adversarial")
    model.zero_grad()
    method.forward_backward(model, tiny_images(), tiny_labels())
    model(tiny_images()).sum().backward()


def test_activation_checkpointing_works_without_branches() -> None:
    own, ours = Checkpointed(tiny_net()).train(), Checkpointed(tiny_net()).train()
    Vanilla().loss(own, tiny_images(), tiny_labels()).backward()
    Vanilla().forward_backward(ours, tiny_images(), tiny_labels())
    assert same_tensors(gradients(own), gradients(ours))
