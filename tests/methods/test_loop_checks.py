"""What a training loop of one's own may get wrong."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch
from tiny import seeded, tiny_branched_net, tiny_images, tiny_labels, tiny_net
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.gradients import branch_parameters
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.fast import Fast
from advprop.methods.kept.frames import shown
from advprop.methods.learning import learn
from advprop.methods.mixed import Mixed
from advprop.methods.step import Context
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch

ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=1, step_size=6 / 255)
LEARNING: list[Method] = [
    Vanilla(),
    Mixed(attack=ATTACK),
    AdvProp(attack=ATTACK),
    Fast(threat_model=Linf(8 / 255)),
]


class Returning(nn.Module):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.model, self.wrap = tiny_branched_net(), wrap

    def forward(self, images: Tensor) -> object:
        return self.wrap(self.model(images))


@pytest.mark.parametrize("method", LEARNING, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize(
    ("wrap", "name"),
    [
        (lambda logits: {"logits": logits}, "dict"),
        (lambda logits: (logits, logits), "tuple"),
        (lambda logits: SimpleNamespace(logits=logits), "SimpleNamespace"),
    ],
    ids=["dict", "tuple", "output"],
)
def test_a_model_without_logits_is_refused(method, wrap, name) -> None:
    model = Returning(wrap).train()
    with pytest.raises(TypeError, match=rf"returns a {name}, .*as in self.model\(images\).logits"):
        method.forward_backward(model, tiny_images(), tiny_labels())
    assert model.training


def test_other_type_errors_stay_what_they_are() -> None:
    def broken(logits, labels):
        raise TypeError("mine")

    with pytest.raises(TypeError, match=r"^mine$"):
        Vanilla().forward_backward(
            tiny_net().train(), tiny_images(), tiny_labels(), Context(loss_fn=broken)
        )


@pytest.mark.parametrize("method", LEARNING, ids=lambda method: type(method).__name__)
def test_a_model_in_eval_mode_is_refused_and_layers_are_not(method) -> None:
    model = tiny_branched_net().eval()
    with pytest.raises(ValueError, match=r"eval mode.* call model\.train\(\)"):
        method.forward_backward(model, tiny_images(), tiny_labels())
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    method.forward_backward(model, tiny_images(), tiny_labels())


def steps(model: nn.Module, optimizer: torch.optim.Optimizer, *, parts: int = 1) -> list[str]:
    """What two steps, each in so many parts, warn of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(parts):
                AdvProp(attack=ATTACK).forward_backward(model, tiny_images(), tiny_labels())
            optimizer.step()
    return [str(warning.message) for warning in caught]


def test_an_optimiser_from_before_the_surgery_is_noticed() -> None:
    plain = tiny_net().train()
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    (message,) = steps(add_auxiliary_norms(plain), optimizer)
    assert "left in 4 parameters of auxiliary branches" in message
    assert "make it from model.parameters() afterwards" in message


@pytest.mark.parametrize("parts", [1, 2])
def test_an_optimiser_of_all_parameters_is_not(parts: int) -> None:
    model = tiny_branched_net().train()
    frozen = next(model.parameters()).requires_grad_(False)
    assert steps(model, torch.optim.SGD(model.parameters(), lr=0.1), parts=parts) == []
    assert frozen.grad is None


def test_branches_that_train_alone_are_not() -> None:
    model = tiny_branched_net().train()
    for parameter in branch_parameters(model)["shared"]:
        parameter.requires_grad_(False)
    assert steps(model, torch.optim.SGD(model.parameters(), lr=0.1), parts=2) == []


@pytest.mark.parametrize("cached", [True, False], ids=["cached", "not cached"])
def test_weights_that_change_within_a_step_are_seen_under_autocast(cached: bool) -> None:
    """Autocast keeps the weights in half precision until its end, whatever becomes of them."""
    model, again = tiny_net().train(), tiny_net(1).train()
    images, labels = tiny_images(), tiny_labels()
    batch = Batch(images=images, labels=labels)
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=cached):
        learn(model, {"clean": batch}, Context())
        model.load_state_dict(again.state_dict())
        model.zero_grad()
        found = learn(model, {"clean": batch}, Context())
    with torch.autocast("cpu", torch.bfloat16):
        expected = F.cross_entropy(again(images), labels)
    expected.backward()
    assert torch.equal(found.loss, expected.detach())
    for parameter, other in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(parameter.grad, other.grad)


def test_kept_perturbations_are_as_exact_under_autocast() -> None:
    whole = torch.rand(2, 3, 64, 64, generator=seeded())
    frames = torch.tensor([[[-0.43, 0.0, 0.31], [0.0, 0.57, -0.22]]]).expand(2, 2, 3)
    expected = shown(whole, frames)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(shown(whole, frames), expected)
