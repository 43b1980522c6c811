"""Models of timm's by name: preprocessing, classes, weights, and what is refused."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg
from torchvision.transforms.functional import to_pil_image

import advprop
from advprop.data.preprocessing import Preprocessing
from advprop.recipes.imagenet import imagenet_resnet50
from advprop.suites.imagenet.classes import imagenet_wnids
from advprop.suites.timm_subjects import find_subject, load_timm_subject, names_timm_model

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def lite0() -> ModuleType:
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module("lite0_weights")
    sys.path.remove(str(EXAMPLES))


def weights_of(name: str, path: Path, **options: object) -> Path:
    torch.manual_seed(0)
    save_file(timm.create_model(name, **options).state_dict(), path)
    return path


def test_real_weights_on_real_photographs(lite0: ModuleType, tmp_path: Path) -> None:
    """Twenty photographs of ImageNet's that foolbox ships, and weights that a package ships."""
    checkpoint = tmp_path / "lite0.safetensors"
    lite0.write_weights(checkpoint)
    for file in lite0.inside("foolbox", "data").glob("imagenet_*_*.jpg"):
        folder = tmp_path / "photographs" / imagenet_wnids()[int(file.stem.split("_")[2])]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder)
    found = advprop.evaluate(
        "tf_efficientnet_lite0",
        checkpoint=checkpoint,
        data={"clean": tmp_path / "photographs"},
    )
    assert found["run"] == "tf_efficientnet_lite0"
    assert found["weights"] == str(checkpoint)
    assert list(found["suites"]) == ["clean"]
    assert found["suites"]["clean"]["num_images"] == 20
    assert found["suites"]["clean"]["clean_accuracy"] == 18 / 20


@pytest.mark.parametrize(
    ("name", "size", "interpolation", "crop_pct", "crop_mode", "mean"),
    [
        ("tf_efficientnet_b0.ap_in1k", 224, "bicubic", 0.875, "center", 0.5),
        ("tf_efficientnet_b4.ap_in1k", 380, "bicubic", 0.922, "center", 0.5),
        ("tf_efficientnet_b0.aa_in1k", 224, "bicubic", 0.875, "center", 0.485),
        ("resnet50.a1_in1k", 288, "bicubic", 1.0, "center", 0.485),  # trained at 224
        ("resnet18.tv_in1k", 224, "bilinear", 0.875, "center", 0.485),
        ("eva02_tiny_patch14_336.mim_in22k_ft_in1k", 336, "bicubic", 1.0, "center", 0.481),
        ("vit_base_patch16_clip_384.openai_ft_in1k", 384, "bicubic", 1.0, "squash", 0.481),
    ],
)
def test_preprocessing_is_that_of_timms_validation(
    name: str,
    size: int,
    interpolation: str,
    crop_pct: float,
    crop_mode: str,
    mean: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = {}

    def build(
        name: str, checkpoint: None, num_classes: int, view: Preprocessing
    ) -> torch.nn.Module:
        built.update(view=view, num_classes=num_classes)
        return torch.nn.Identity()

    monkeypatch.setattr("advprop.suites.timm_subjects._model", build)
    tested = load_timm_subject(name)
    assert tested.preprocessing == Preprocessing(
        image_shape=(3, size, size),
        interpolation=interpolation,  # type: ignore[arg-type]
        crop_pct=crop_pct,
        crop_mode=crop_mode,  # type: ignore[arg-type]
    )
    assert built == {"view": tested.preprocessing, "num_classes": 1000}
    assert tested.class_names == imagenet_wnids()
    assert tested.weights == f"timm's {name.partition('.')[2]}"
    assert get_pretrained_cfg(name).mean[0] == pytest.approx(mean, abs=1e-3)
    image = to_pil_image(torch.rand(3, 50, 90, generator=torch.Generator().manual_seed(0)))
    settings = get_pretrained_cfg(name).to_dict()
    config = resolve_data_config({}, pretrained_cfg=settings, use_test_size=True)
    theirs = create_transform(**config, is_training=False)(image)
    ours = tested.preprocessing.apply(image)
    standardized = (ours - torch.tensor(config["mean"]).reshape(3, 1, 1)) / torch.tensor(
        config["std"]
    ).reshape(3, 1, 1)
    torch.testing.assert_close(standardized, theirs)


def test_mean_and_std_are_the_first_layer(tmp_path: Path) -> None:
    checkpoint = weights_of("tf_efficientnet_b0.ap_in1k", tmp_path / "b0.safetensors")
    tested = load_timm_subject("tf_efficientnet_b0.ap_in1k", checkpoint=checkpoint)
    assert tested.model.mean.flatten().tolist() == tested.model.std.flatten().tolist() == [0.5] * 3
    assert not tested.model.training
    assert tested.load_data is None
    # the attack is the ImageNet recipes'
    assert tested.evaluation == imagenet_resnet50().evaluation


def test_a_checkpoint_of_other_classes_is_refused(tmp_path: Path) -> None:
    checkpoint = weights_of("test_resnet", tmp_path / "ten.safetensors", num_classes=10)
    with pytest.raises(ValueError, match=r"fc.weight is \(10, .*name the model that they were"):
        load_timm_subject("test_resnet", checkpoint=checkpoint)


def test_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="timm has no weights for it; give some with --checkpoint"):
        load_timm_subject("ecaresnet200d")

    def offline(*_: object, **__: object) -> None:
        raise LocalEntryNotFoundError("cannot find the files in the local cache")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ValueError, match=r"check the connection, .*; --checkpoint FILE"):
        load_timm_subject("resnet18")


def test_models_whose_outputs_are_unknown() -> None:
    with pytest.raises(ValueError, match="what its 0 outputs mean"):
        load_timm_subject("vit_base_patch16_siglip_224")
    with pytest.raises(ValueError, match=r"volo_d5_512.*crop_pct=1.15"):
        load_timm_subject("volo_d5_512")


def test_folders_go_before_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert names_timm_model("resnet18.a1_in1k")
    assert not names_timm_model(tmp_path / "resnet18")
    assert not names_timm_model("resnet8")
    (tmp_path / "resnet18").mkdir()
    assert not names_timm_model("resnet18")
    with pytest.raises(ValueError, match="no run here"):
        find_subject("resnet18")
    with pytest.raises(ValueError, match=r"resnet18: --checkpoint w.pth is for a model that timm"):
        find_subject("resnet18", checkpoint="w.pth")
    with pytest.raises(ValueError, match="resnet34: --weights ema chooses among those of a run"):
        find_subject("resnet34", weights="ema")
