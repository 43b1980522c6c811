"""SAM: the gradient at the weights nearby where the loss is highest."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from case import Case
from tiny import (
    gradients,
    same_tensors,
    seeded,
    tiny_images,
    tiny_labels,
    tiny_net,
    tiny_vit,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from advprop.methods.base import Method
from advprop.methods.learning import recomputing
from advprop.methods.sam import SAM
from advprop.methods.step import Context, StepMetrics
from advprop.methods.vanilla import Vanilla

CASES = {"sam": Case(method=SAM(), forwards=2)}
INFINITY = float("inf")


def step(method: Method, model: nn.Module, **context: object) -> StepMetrics:
    torch.manual_seed(5)
    context = {"generator": seeded(), **context}
    return method.forward_backward(
        model.train(),
        tiny_images(),
        tiny_labels(),
        Context(**context),  # type: ignore[arg-type]
    )


def trained(method: Method, model: nn.Module) -> nn.Module:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    for number in range(3):
        optimizer.zero_grad()
        step(method, model, step=number)
        optimizer.step()
    return model


def by_hand(model: nn.Module, rho: float) -> tuple[dict[str, Tensor | None], dict[str, Tensor]]:
    """Gradients and buffers of one step as Foret et al.'s algorithm 1 has it."""
    here, there = copy.deepcopy(model).train(), copy.deepcopy(model).train()
    torch.manual_seed(5)
    F.cross_entropy(here(tiny_images()), tiny_labels()).backward()
    found = [p.grad.double() for p in here.parameters() if p.grad is not None]
    norm = sum(gradient.square().sum() for gradient in found).sqrt()
    with torch.no_grad():
        for moved, parameter in zip(there.parameters(), here.parameters(), strict=True):
            if parameter.grad is not None:
                moved.add_((rho * parameter.grad / norm).float())
    torch.manual_seed(5)
    F.cross_entropy(there(tiny_images()), tiny_labels()).backward()
    return gradients(there), dict(here.named_buffers())


@pytest.mark.parametrize("net", ["dropout", "frozen", "vit"])
def test_a_step_is_that_of_the_paper(net: str) -> None:
    model = tiny_vit(drop=0.2) if net == "vit" else tiny_net(dropout=0.3)
    if net == "frozen":
        next(model.parameters()).requires_grad_(False)
    expected, buffers = by_hand(model, 0.5)
    ordinary = copy.deepcopy(model)
    step(Vanilla(), ordinary)
    step(SAM(rho=0.5), model)
    for name, gradient in gradients(model).items():
        if expected[name] is None:
            assert gradient is None
        else:
            torch.testing.assert_close(gradient, expected[name])
    assert same_tensors(dict(model.named_buffers()), buffers)
    assert not same_tensors(gradients(model), gradients(ordinary))


def test_the_gradient_of_a_quadratic_loss_is_known() -> None:
    """Of w'Aw / 2 it is A(w + rho Aw / |Aw|)."""
    images = torch.tensor([[2.0, 0.0], [1.0, 1.0]]).view(2, 2, 1, 1) / 2
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 1, bias=False))
    model[1].weight.data = torch.tensor([[1.0, -3.0]])
    matrix = images.flatten(1).T @ images.flatten(1)
    slope = matrix @ model[1].weight[0]
    expected = matrix @ (model[1].weight[0] + 0.25 * slope / slope.norm())
    context = Context(loss_fn=lambda logits, labels: logits.square().sum() / 2)
    SAM(rho=0.25).forward_backward(model, images, torch.zeros(2, dtype=torch.long), context)
    torch.testing.assert_close(model[1].weight.grad[0], expected)


def test_without_a_radius_it_is_vanilla() -> None:
    for build in (tiny_net, tiny_vit):
        found, vanilla = trained(SAM(rho=0.0), build()), trained(Vanilla(), build())
        assert same_tensors(found.state_dict(), vanilla.state_dict())
        assert not same_tensors(trained(SAM(), build()).state_dict(), vanilla.state_dict())
    assert SAM(rho=0.0).passes_per_image == 1


def test_steps_between_are_vanilla() -> None:
    vanilla, every_step = tiny_net(), tiny_net()
    step(Vanilla(), vanilla)
    step(SAM(), every_step)
    for number, limit in enumerate((every_step, vanilla, vanilla, every_step)):
        model = tiny_net()
        step(SAM(every=3), model, step=number)
        assert same_tensors(gradients(model), gradients(limit))
    assert [SAM(every=every).passes_per_image for every in (1, 2, 4)] == [2, 1.5, 1.25]


def test_the_loss_is_that_of_the_weights_moved() -> None:
    loss, here = step(SAM(), tiny_net()).loss, step(Vanilla(), tiny_net()).loss
    assert loss > here + 0.01
    small = step(SAM(rho=1e-3), tiny_net()).loss
    assert 0 < small - here < (loss - here) / 10


def test_the_loss_scale_does_not_reach_the_radius() -> None:
    scale = 2.0**16
    plain, scaled = tiny_net(), tiny_net()
    step(SAM(), plain)
    step(SAM(), scaled, backward=lambda loss: (scale * loss).backward())
    for name, gradient in gradients(scaled).items():
        assert torch.equal(gradient / scale, plain.get_parameter(name).grad)


@pytest.mark.parametrize("scale", [INFINITY, float("nan"), 0.0, 1e-38])
def test_weights_stay_where_gradients_give_no_direction(scale: float) -> None:
    """As with a loss scale that is too large: the optimiser passes over such a step."""
    loss = step(SAM(), tiny_net(), backward=lambda loss: (scale * loss).backward()).loss
    assert torch.equal(loss, step(Vanilla(), tiny_net()).loss)


@pytest.mark.parametrize("fails_at", [0, 1])
def test_gradients_of_earlier_parts_survive_a_failing_pass(fails_at: int) -> None:
    calls: list[int] = []

    def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
        calls.append(0)
        if len(calls) > fails_at:
            raise KeyError
        return F.cross_entropy(logits, labels)

    model = tiny_net()
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    with pytest.raises(KeyError):
        step(SAM(), model, loss_fn=loss_fn)
    assert all(gradient.eq(1).all() for gradient in gradients(model).values())


class Checkpointed(nn.Module):
    """Runs its net again in the backward pass."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        return checkpoint(self.net, images, use_reentrant=False)


def test_activation_checkpointing_changes_nothing() -> None:
    plain, again = tiny_net(dropout=0.3), Checkpointed(tiny_net(dropout=0.3))

    def backward(loss: Tensor) -> None:
        with recomputing(again):
            loss.backward()

    step(SAM(), plain)
    step(SAM(), again, backward=backward)
    assert same_tensors(gradients(plain), gradients(again.net))
    assert same_tensors(plain.state_dict(), again.net.state_dict())


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("rho", -0.1, "rho -0.1: give a finite number of at least 0"),
        ("rho", INFINITY, "rho inf: give a finite number"),
        ("every", 0, "every 0: give a number of steps of at least 1"),
    ],
)
def test_impossible_settings(setting: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SAM(), **{setting: value})
