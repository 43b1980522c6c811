"""How far branches lie apart, against values worked out by hand."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from branch_nets import branched, small_net, some_images
from torch import nn

from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.statistics import branch_distances
from advprop.auxiliary.surgery import add_auxiliary_norms


def norm_with_known_distances(*, affine: bool = True) -> nn.Module:
    """Clean: means 0, variances 4 and 1. Adversarial: means 2 and -3, variances 8 and 1/2."""
    norm = nn.BatchNorm2d(2, eps=0.0, affine=affine)
    model = add_auxiliary_norms(nn.Sequential(norm))
    norm.running_var.copy_(torch.tensor([4.0, 1.0]))
    other = model[0].branches["adversarial"]
    other.running_mean.copy_(torch.tensor([2.0, -3.0]))
    other.running_var.copy_(torch.tensor([8.0, 0.5]))
    if affine:
        other.weight.data.copy_(torch.tensor([1.5, 0.0]))
        other.bias.data.copy_(torch.tensor([-0.5, 0.0]))
    return model


def test_distances_of_one_layer() -> None:
    (distance,) = branch_distances(norm_with_known_distances(), "adversarial")
    assert distance.layer == "0"
    assert distance.mean_distance == pytest.approx((2 / 2 + 3 / 1) / 2)
    assert distance.variance_ratio == pytest.approx(2.0)
    assert distance.weight_distance == pytest.approx((0.5 + 1.0) / 2)
    assert distance.bias_distance == pytest.approx(0.5 / 2)


def test_epsilon_counts_as_the_layer_counts_it() -> None:
    model = norm_with_known_distances()
    for norm in model[0].branches.values():
        norm.eps = 5.0
    (distance,) = branch_distances(model, "adversarial")
    assert distance.mean_distance == pytest.approx((2 / 3 + 3 / math.sqrt(6)) / 2)
    assert distance.variance_ratio == pytest.approx(math.sqrt(13 / 9 * 6 / 5.5))


def test_layers_without_parameters() -> None:
    (distance,) = branch_distances(norm_with_known_distances(affine=False), "adversarial")
    assert distance.weight_distance is None
    assert distance.bias_distance is None
    assert json.loads(json.dumps(asdict(distance)))["weight_distance"] is None


def test_new_branches_lie_at_no_distance() -> None:
    model = add_auxiliary_norms(small_net())
    (distance,) = branch_distances(model, "adversarial")
    assert (distance.layer, distance.mean_distance, distance.variance_ratio) == ("1", 0.0, 1.0)
    assert (distance.weight_distance, distance.bias_distance) == (0.0, 0.0)


def test_layers_in_the_models_order_and_only_those_with_statistics() -> None:
    net = nn.Sequential(
        nn.BatchNorm2d(3),
        nn.GroupNorm(1, 3),
        nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)),
        nn.BatchNorm2d(3),
    )
    distances = branch_distances(branched(net), "adversarial")
    assert [distance.layer for distance in distances] == ["0", "2.0", "3"]
    assert branch_distances(branched(nn.Sequential(nn.LayerNorm(4))), "adversarial") == []


def test_each_branch_has_its_own_distance_whichever_is_active() -> None:
    model = branched(small_net(), ("adversarial", "noise"))
    first, second = (branch_distances(model, name)[0] for name in ("adversarial", "noise"))
    assert first.mean_distance != second.mean_distance
    assert branch_distances(model, "clean")[0].mean_distance == 0.0
    with use_branch(model, "noise"):
        assert branch_distances(model, "adversarial") == [first]


def test_training_on_other_images_moves_statistics_apart() -> None:
    model = add_auxiliary_norms(small_net()).train()
    for step in range(60):
        model(some_images(seed=step))
        with use_branch(model, "adversarial"):
            model(some_images(seed=step) * 3 + 1)
    (distance,) = branch_distances(model, "adversarial")
    assert distance.mean_distance > 0.5
    assert distance.variance_ratio > 4
    assert distance.weight_distance == 0.0
