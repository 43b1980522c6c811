"""Gradients of a branch's own parameters, scaled."""

import copy
from functools import partial

import pytest
import torch
from branch_nets import branched, small_net, some_images
from tiny import Operations
from torch import nn

from advprop.auxiliary.branches import branch_names, use_branch
from advprop.auxiliary.gradients import branch_parameters, scaled_gradients


class StoppedError(Exception):
    """Raised inside the block under test."""


def own_gradients(model: nn.Module) -> dict[str, list[torch.Tensor]]:
    found = {
        name: [parameter.grad.clone() for parameter in owned]
        for name, owned in branch_parameters(model).items()
    }
    model.zero_grad()
    return found


@pytest.mark.parametrize("reduced", [False, True], ids=["on leaving", "by hooks"])
def test_gradients_are_scaled_for_the_branch_named_while_inside(reduced: bool) -> None:
    model = branched(small_net())
    scaled = partial(scaled_gradients, model, reduced=reduced)

    def backward() -> None:
        with use_branch(model, ("clean", "adversarial")):
            model(some_images()).square().sum().backward()

    model.eval()  # the same statistics each time
    backward()
    plain = own_gradients(model)
    next(iter(branch_parameters(model)["clean"])).requires_grad_(False)
    with pytest.raises(StoppedError), scaled({"clean": 4.0, "adversarial": 1.0}):
        raise StoppedError
    next(iter(branch_parameters(model)["clean"])).requires_grad_(True)
    backward()
    assert_scaled(own_gradients(model), plain, {})
    with scaled({"clean": 4.0, "adversarial": 1.0}):
        backward()
    assert_scaled(own_gradients(model), plain, {"clean": 4.0})
    backward()  # added to what was there before
    with scaled({"adversarial": 0.5}):
        backward()
    assert_scaled(own_gradients(model), plain, {"shared": 2.0, "clean": 2.0, "adversarial": 1.5})


def test_all_gradients_of_a_branch_are_scaled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = branched(small_net())
    (first, *_), adversarial = (branch_parameters(model)[name] for name in branch_names(model))
    before = first.grad = torch.ones_like(first)
    hooks = monkeypatch.setattr(torch.Tensor, "register_hook", None)
    with Operations() as called, scaled_gradients(model, {"clean": 2.0, "adversarial": 3.0}):
        assert first.grad is None
        first.grad = torch.full_like(first, 5.0)
        adversarial[-1].grad = torch.ones_like(adversarial[-1])
        called.names.clear()
    assert hooks is None
    assert called.names == ["_foreach_mul_", "_foreach_mul_", "_foreach_add_"]
    assert first.grad is before  # whoever holds it has the sum
    assert torch.equal(before, torch.full_like(first, 11.0))
    assert torch.equal(adversarial[-1].grad, torch.full_like(adversarial[-1], 3.0))
    assert sum(parameter.grad is not None for parameter in model.parameters()) == 2


def test_replaced_and_added_layers_are_scaled_as_they_are_now() -> None:
    model = branched(small_net())
    with scaled_gradients(model, {"adversarial": 2.0}):
        pass
    model[1].branches["adversarial"] = nn.BatchNorm2d(8)
    copied = copy.deepcopy(model)
    for net in (model, copied):
        new = net[1].branches["adversarial"].weight
        assert new in branch_parameters(net)["adversarial"]
        with scaled_gradients(net, {"adversarial": 2.0}):
            new.grad = torch.ones_like(new)
        assert torch.equal(new.grad, torch.full_like(new, 2.0))


def assert_scaled(
    found: dict[str, list[torch.Tensor]],
    plain: dict[str, list[torch.Tensor]],
    factors: dict[str, float],
) -> None:
    for name, gradients in found.items():
        for gradient, expected in zip(gradients, plain[name], strict=True):
            # powers of two, or sums of them: nothing is rounded
            assert torch.equal(gradient, factors.get(name, 1.0) * expected)
