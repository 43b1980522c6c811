from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from advprop.models.standardize import Standardized, standardized


def grey_net() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def test_arithmetic_is_that_of_torchvision_bit_for_bit() -> None:
    images = torch.rand(4, 3, 16, 16)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = torchvision.transforms.functional.normalize(images, mean, std)
    assert torch.equal(standardized(nn.Identity(), mean=mean, std=std)(images), expected)


def test_mean_and_std_come_from_timm() -> None:
    model = timm.create_model("test_vit")
    images = torch.rand(2, 3, *model.pretrained_cfg["input_size"][1:])
    mean, std = (
        torch.tensor(model.pretrained_cfg[name]).reshape(3, 1, 1) for name in ("mean", "std")
    )
    whole = standardized(model.eval())
    assert torch.equal(whole(images), model((images - mean) / std))
    assert whole.model is model


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_other_channel_counts_get_the_average(name: str) -> None:
    for in_chans in (1, 4):
        model = timm.create_model(name, in_chans=in_chans)
        whole = standardized(model)
        average = sum(model.pretrained_cfg["mean"]) / 3
        assert whole.mean.flatten().tolist() == pytest.approx([average] * in_chans)
        size = model.pretrained_cfg["input_size"][1:]
        assert whole(torch.rand(2, in_chans, *size)).shape == (2, 1000)


@pytest.mark.parametrize("in_chans", [1, 3])
def test_channels_are_those_of_images_not_of_the_first_convolution(in_chans: int) -> None:
    with torch.device("meta"):
        model = timm.create_model("tresnet_m", in_chans=in_chans)  # folds 4x4 pixels into channels
        assert standardized(model).mean.shape == (in_chans, 1, 1)


def test_gradients_are_those_of_images_in_the_unit_range() -> None:
    images = torch.rand(1, 1, 8, 8, requires_grad=True)
    model = standardized(nn.Identity(), mean=[0.25], std=[0.5])
    (gradient,) = torch.autograd.grad(model(images).sum(), images)
    assert torch.equal(gradient, torch.full_like(images, 2.0))


def test_mean_and_std_are_saved_and_follow_the_model() -> None:
    model = standardized(grey_net(), mean=[0.25], std=[0.5])
    other = standardized(grey_net(), mean=[0.1], std=[0.1])
    other.load_state_dict(model.state_dict())
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(other(images), model(images))
    assert model.double()(images.double()).dtype == torch.float64
    assert standardized(grey_net().double(), mean=[0.2], std=[0.5]).mean.dtype == torch.float64
    assert "mean=(0.25,), std=(0.5,)" in str(model)


def test_standardising_twice_is_refused() -> None:
    once = standardized(grey_net(), mean=[0.5], std=[0.5])
    with pytest.raises(ValueError, match="standardised already"):
        standardized(once, mean=[0.5], std=[0.5])
    with pytest.raises(ValueError, match="standardised already"):
        standardized(nn.Sequential(once), mean=[0.5], std=[0.5])


def test_a_model_without_timms_settings_needs_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"no `pretrained_cfg`.*standardized\(model, mean="):
        standardized(grey_net())
    with pytest.raises(ValueError, match="mean is given without std"):
        standardized(grey_net(), mean=[0.5])
    with pytest.raises(ValueError, match="std is given without mean"):
        standardized(grey_net(), std=[0.5])


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5, 0.5], [0.5], "mean has 2 numbers and std 1"),
        ([], [], "0 numbers"),
        ([0.5], [0.0], "std above 0"),
        ([0.5], [-0.5], "std above 0"),
        ([float("nan")], [0.5], "finite"),
        ([123.7], [58.4], "divide values measured on bytes by 255"),
    ],
)
def test_impossible_numbers_are_refused(mean: list[float], std: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Standardized(grey_net(), mean=mean, std=std)


def test_wrong_images_are_refused() -> None:
    model = standardized(nn.Identity(), mean=[0.5] * 3, std=[0.5] * 3)
    with pytest.raises(ValueError, match="images have 1 channels"):
        model(torch.rand(2, 1, 8, 8))
    with pytest.raises(TypeError, match="255"):
        model(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
