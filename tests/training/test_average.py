"""The average of weights: timm's, bit for bit, in fewer calls."""

from __future__ import annotations

import pytest
import torch
from timm.utils import ModelEmaV3
from tiny import Operations, tiny_net
from torch import nn

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.training.average import WeightAverage

OPTIONS = {"decay": 0.9, "use_warmup": True}


def change(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor += torch.rand(tensor.shape, generator=generator)
        else:
            tensor += 1


def average_of(model: nn.Module, kind: type[ModelEmaV3]) -> dict[str, torch.Tensor]:
    average = kind(model, **OPTIONS)
    for step in range(1, 5):
        change(model, step)
        average.update(model, step=step)
    found: dict[str, torch.Tensor] = average.module.state_dict()
    return found


@pytest.mark.parametrize("separate", ["both", "affine", "statistics"])
def test_it_is_timms_bit_for_bit(separate: str) -> None:
    timms, ours = (
        average_of(add_auxiliary_norms(tiny_net(), separate=separate), kind)
        for kind in (ModelEmaV3, WeightAverage)
    )
    assert list(ours) == list(timms)
    assert all(torch.equal(tensor, timms[name]) for name, tensor in ours.items())
    assert ours["1.branches.clean.num_batches_tracked"] > 3


def test_an_update_is_two_operators_and_asks_for_no_state_dict() -> None:
    model = add_auxiliary_norms(tiny_net())
    average = WeightAverage(model, **OPTIONS)
    average.update(model, step=2)
    model.register_state_dict_pre_hook(lambda *_: pytest.fail("asked"))
    with Operations() as called:
        average.update(model, step=3)
    assert called.names == ["_foreach_lerp_", "_foreach_copy_"]


def test_tensors_and_modules_that_are_replaced_are_counted_in() -> None:
    model = tiny_net()
    average = WeightAverage(model, decay=0.5)
    average.update(model)
    kept = average.module[1].running_mean.zero_()
    model[1].running_mean = torch.full_like(kept, 2.0)
    average.update(model)
    assert torch.equal(kept, torch.full_like(kept, 1.0))
    model[1] = nn.BatchNorm2d(6)  # statistics of 0
    average.update(model)
    assert torch.equal(kept, torch.full_like(kept, 0.5))


def test_a_tensor_of_two_modules_is_counted_in_once() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    model[1].weight = model[0].weight
    with torch.no_grad():
        model[0].weight.fill_(0)
    average = WeightAverage(model, decay=0.5)
    with torch.no_grad():
        model[0].weight.fill_(1)
    average.update(model)
    assert torch.equal(average.module[0].weight, torch.full((2, 2), 0.5))
    assert average.module[1].weight is average.module[0].weight


def test_buffers_that_no_checkpoint_has_stay_as_they_are() -> None:
    model = nn.BatchNorm2d(2)
    model.register_buffer("place", torch.zeros(1), persistent=False)
    average = WeightAverage(model, decay=0.5)
    model.place += 1
    average.update(model)
    assert average.module.place == 0
