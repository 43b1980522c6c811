from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from torch import nn

from advprop.config.run import ModelConfig
from advprop.models.build import build_model, construction
from advprop.models.small_resnet import SmallResNet

GREY = {"mean": [0.13], "std": [0.31]}


def test_small_resnet_with_its_options() -> None:
    model = build_model("small_resnet", num_classes=4, in_chans=1, width=8, **GREY)
    assert isinstance(model.model, SmallResNet)
    assert model.model.num_features == 32
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 4)
    assert model.mean.item() == pytest.approx(0.13)


def test_any_name_of_timms_with_its_options() -> None:
    model = build_model("test_resnet", num_classes=4, in_chans=1, act_layer="silu")
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 4)
    assert any(isinstance(layer, nn.SiLU) for layer in model.modules())
    assert type(build_model("test_vit.r160_in1k", num_classes=4, in_chans=3).model) is type(
        timm.create_model("test_vit")
    )


def test_size_goes_to_architectures_that_fix_it() -> None:
    fixed = build_model("test_vit", num_classes=4, in_chans=3, image_size=(32, 48))
    assert fixed(torch.rand(2, 3, 32, 48)).shape == (2, 4)
    free = build_model("test_resnet", num_classes=4, in_chans=3, image_size=(32, 48))
    assert free(torch.rand(2, 3, 32, 48)).shape == (2, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet18x", "did you mean resnet18 or"),
        ("small_resnett", "did you mean small_resnet"),
        ("qqqqqq", "timm.list_models"),
        ("resnet18.nope", "no pretrained weights 'nope', it has a1_in1k"),
    ],
)
def test_unknown_names_get_the_nearest_ones(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_model(name, num_classes=4, in_chans=1)


@pytest.mark.parametrize(
    "name", ["checkpoint_path", "cache_dir", "pretrained_cfg", "pretrained_cfg_overlay"]
)
def test_an_option_opens_no_file_and_fetches_nothing(name: str) -> None:
    with pytest.raises(ValueError, match=f"options has {name}, which is no option"):
        ModelConfig(name="test_resnet", options={name: "/nowhere"})


def test_options_that_do_not_suit_are_named() -> None:
    with pytest.raises(ValueError, match="small_resnet: the architecture takes no option 'depth'"):
        build_model("small_resnet", num_classes=4, in_chans=1, depth=3, **GREY)
    with pytest.raises(ValueError, match="takes no option 'widht'"):
        build_model("test_resnet", num_classes=4, in_chans=1, widht=3)
    with pytest.raises(ValueError, match=r"test_resnet: cannot be built.*output_stride.*7"):
        build_model("test_resnet", num_classes=4, in_chans=1, output_stride=7)
    with pytest.raises(ValueError, match="num_classes=0"):
        build_model("test_resnet", num_classes=0, in_chans=1)


def test_pretrained_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="small_resnet has no pretrained"):
        build_model("small_resnet", num_classes=4, in_chans=1, pretrained=True, **GREY)
    with pytest.raises(ValueError, match="timm has no pretrained weights"):
        build_model("ecaresnet200d", num_classes=4, in_chans=3, pretrained=True)

    def offline(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("cannot find the files in the local cache")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match="check the connection"):
        build_model("resnet18", num_classes=4, in_chans=3, pretrained=True)
    with pytest.raises(ValueError, match=r"--set model.pretrained=false .*--set model.checkpoint"):
        ModelConfig(name="resnet18", pretrained=True).build(num_classes=4, image_shape=(3, 32, 32))


def test_construction_tells_how_to_build_it_again() -> None:
    built = build_model(
        "test_efficientnet", num_classes=4, in_chans=1, drop_path_rate=0.1, act_layer="relu"
    ).model
    assert construction(built) == (
        "test_efficientnet",
        {"num_classes": 4, "in_chans": 1, "act_layer": "relu"},
    )
    built.reset_classifier(6)
    assert construction(built)[1]["num_classes"] == 6
    assert construction(SmallResNet(3, width=8)) == (
        "small_resnet",
        {"num_classes": 3, "in_chans": 1, "width": 8, "stem_stride": 2},
    )
    with pytest.raises(ValueError, match="Linear is no architecture"):
        construction(nn.Linear(2, 2))


def test_a_new_classifier_on_pretrained_layers_starts_at_zero(tmp_path: Path) -> None:
    """From a local file instead of the hub, which is how timm can be told to."""
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    source = {"file": str(tmp_path / "weights.pth"), "hf_hub_id": None, "url": ""}
    heads = {}
    for num_classes in (3, 1000):
        model = build_model(
            "resnet18",
            num_classes=num_classes,
            in_chans=3,
            pretrained=True,
            pretrained_cfg_overlay=source,
        )
        heads[num_classes] = model.model.get_classifier()
    assert not heads[3].weight.any()
    assert not heads[3].bias.any()
    assert heads[1000].weight.any()
