"""Maps of what a model looks at, against closed forms."""

from __future__ import annotations

import timm
import torch
from torch import nn

from advprop.auxiliary.branches import attack_mode
from advprop.evaluation.saliency import grad_cam, input_gradients
from advprop.models.small_resnet import SmallResNet

LABELS = torch.tensor([2, 0])


def some_images(size: int, channels: int = 3) -> torch.Tensor:
    return torch.rand(2, channels, size, size, generator=torch.Generator().manual_seed(1))


def test_of_a_linear_model_the_gradient_is_its_weights() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 10 * 10, 4))
    maps = input_gradients(model, some_images(10), LABELS)
    sizes = model[1].weight.detach()[LABELS].reshape(2, 3, 10, 10).abs().amax(dim=1)
    white = sizes.flatten(1).quantile(0.99, dim=1).reshape(2, 1, 1)
    torch.testing.assert_close(maps, (sizes / white).clamp(max=1)[:, None])
    assert model[1].weight.grad is None
    assert 1 <= int((maps[0] == 1).sum()) <= 2


def test_behind_average_pooling_grad_cam_is_the_class_activation_map() -> None:
    """Zhou et al. 2016: the classifier's weights times the features; one pixel a feature."""
    torch.manual_seed(0)
    net = SmallResNet(4, in_chans=1, width=8, stem_stride=1).eval()
    images = some_images(12, channels=1)
    with torch.no_grad():
        features = net.forward_features(images)
        expected = torch.einsum("nc,nchw->nhw", net.fc.weight[LABELS], features).relu()
        expected /= expected.amax(dim=(1, 2), keepdim=True)
    with attack_mode(net):  # parameters without gradients
        maps = grad_cam(net, images, LABELS)
    assert maps.shape == (2, 1, 12, 12)
    enlarged = nn.functional.interpolate(expected[:, None], size=(12, 12), mode="bilinear")
    torch.testing.assert_close(maps, enlarged)
    assert maps.max() > 0.5


def test_there_is_no_grad_cam_where_features_are_no_picture() -> None:
    images = some_images(160)
    assert grad_cam(nn.Flatten(), images, LABELS) is None
    assert grad_cam(timm.create_model("test_vit", num_classes=4).eval(), images, LABELS) is None
    assert (
        grad_cam(timm.create_model("test_byobnet", num_classes=4).eval(), images, LABELS)
        is not None
    )


def test_a_dead_feature_map_is_black() -> None:
    net = SmallResNet(4, in_chans=1, width=8).eval()
    nn.init.zeros_(net.fc.weight)
    maps = grad_cam(net, some_images(12, channels=1), LABELS)
    assert maps.abs().max() == 0
    assert input_gradients(net, some_images(12, channels=1), LABELS).abs().max() == 0
