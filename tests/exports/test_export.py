from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from advprop.auxiliary.branches import branch_names, use_branch
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms
from advprop.data.preprocessing import Preprocessing
from advprop.exports.export import is_export, load_export, write_export
from advprop.exports.format import read_checks
from advprop.models.build import build_model
from advprop.models.standardize import Standardized, standardized

NAMES = ("cat", "dog", "eel")
FILES = ["README.md", "config.json", "model.safetensors"]
MEAN, STD = (0.41, 0.37, 0.59), (0.21, 0.33, 0.1)


@torch.no_grad()
def moved(model: Standardized, *, seed: int = 0) -> Standardized:
    """Every floating-point tensor away from where it was initialised, statistics included."""
    torch.manual_seed(seed)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and name not in ("mean", "std"):
            tensor.mul_(torch.rand_like(tensor).add_(0.5)).add_(0.02 * torch.rand_like(tensor))
    return model


def small(num_classes: int = 3, *, seed: int = 0) -> Standardized:
    model = build_model(
        "small_resnet", num_classes=num_classes, in_chans=1, width=8, mean=[0.13], std=[0.31]
    )
    return moved(model, seed=seed)


GREY = Preprocessing(image_shape=(1, 28, 28), crop_pct=1.0)
write_small = partial(write_export, class_names=NAMES, preprocessing=GREY)


def images(preprocessing: Preprocessing = GREY) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(2, *preprocessing.image_shape, generator=generator)


@pytest.mark.parametrize(
    ("name", "channels", "size", "options"),
    [
        ("resnet18", 1, 32, {}),
        ("tf_efficientnet_b0", 3, 32, {"drop_path_rate": 0.2}),
        ("vit_tiny_patch16_224", 3, 32, {"img_size": 32, "global_pool": "avg"}),
        ("convnext_atto", 1, 32, {"conv_mlp": True}),
        ("coat_lite_tiny", 3, 64, {"img_size": 64}),  # has tensors under several names
        ("test_mambaout", 3, 32, {}),
    ],
)
def test_timm_loads_it_bit_equal(
    tmp_path: Path, name: str, channels: int, size: int, options: dict[str, Any]
) -> None:
    mean, std = MEAN[:channels], STD[:channels]
    plain = timm.create_model(name, num_classes=3, in_chans=channels, **options)
    model = add_auxiliary_norms(moved(standardized(plain, mean=mean, std=std)))
    preprocessing = Preprocessing(
        image_shape=(channels, size, size), interpolation="bilinear", crop_pct=0.9
    )
    batch = images(preprocessing)
    with torch.no_grad():
        expected = model.eval()(batch)
    assert expected.std() > 1e-6
    folder = write_export(
        model, tmp_path / "export", class_names=NAMES, preprocessing=preprocessing
    )
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    settings = loaded.pretrained_cfg
    assert tuple(settings["mean"]) == mean
    assert tuple(settings["std"]) == std
    assert tuple(settings["input_size"]) == preprocessing.image_shape
    assert (settings["interpolation"], settings["crop_pct"]) == ("bilinear", 0.9)
    assert tuple(settings["label_names"]) == NAMES
    given = (batch - torch.tensor(mean).reshape(-1, 1, 1)) / torch.tensor(std).reshape(-1, 1, 1)
    with torch.no_grad():
        assert torch.equal(loaded(given), expected)
        assert torch.equal(load_export(folder).model(batch), expected)
    remove_auxiliary_norms(model)
    assert loaded.state_dict().keys() == model.model.state_dict().keys()


def test_exports_of_format_1_are_read(tmp_path: Path) -> None:
    """They had the number of classes among the arguments of the model too."""
    model = moved(standardized(timm.create_model("test_resnet", num_classes=3, in_chans=1)))
    folder = write_small(model, tmp_path / "export")
    written = json.loads((folder / "config.json").read_text())
    assert "num_classes" not in written["model_args"]
    for change in (edit("model_args", "num_classes", value=3), edit("advprop", "format", value=1)):
        change(folder)
    expected = model.eval()(images())
    assert torch.equal(load_export(folder).model(images()), expected)
    loaded = standardized(timm.create_model(f"local-dir:{folder}", pretrained=True)).eval()
    assert torch.equal(loaded(images()), expected)


def test_a_squashed_view_stays_one(tmp_path: Path) -> None:
    squash = Preprocessing(image_shape=(1, 28, 28), crop_pct=1.0, crop_mode="squash")
    folder = write_export(small(), tmp_path / "export", class_names=NAMES, preprocessing=squash)
    assert load_export(folder).preprocessing == squash


def test_all_that_was_said_comes_back(tmp_path: Path) -> None:
    model = small()
    provenance = {"config": {"recipe": "mnist5k"}, "weights": "ema", "accuracy": None}
    folder = write_small(model, tmp_path / "deep" / "export", provenance=provenance)
    assert sorted(path.name for path in folder.iterdir()) == FILES
    export = load_export(folder)
    assert export.class_names == NAMES
    assert export.preprocessing == GREY
    assert export.provenance == provenance
    assert not export.model.training
    assert torch.equal(export.model(images()), model.eval()(images()))
    assert is_export(folder)


@torch.no_grad()
def test_other_formats_lie_beside_it_with_what_was_measured(tmp_path: Path) -> None:
    model = add_auxiliary_norms(small())
    folder = write_small(model, tmp_path / "export", formats=["torch_export"])
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "model.pt2"])
    check = read_checks(folder)["model.pt2"]
    digest = hashlib.sha256((folder / "model.pt2").read_bytes()).hexdigest()
    assert (check["format"], check["sha256"]) == ("torch_export", digest)
    assert check["max_difference"] == 0
    program = torch.export.load(folder / "model.pt2").module()
    export = load_export(folder)
    assert torch.equal(program(images()), export.model(images()))
    assert export.provenance == {}
    assert "| `model.pt2` |" in (folder / "README.md").read_text()


def test_a_format_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match='format "tflite" unknown'):
        write_small(small(), tmp_path / "export", formats=["tflite"])

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator\nand a long story")

    monkeypatch.setattr(torch.export, "export", refuse)
    with pytest.raises(ValueError, match=r"RuntimeError: no such operator\); nothing was written"):
        write_small(small(), tmp_path / "export", formats=["hub", "torch_export"])
    assert list(tmp_path.iterdir()) == []


@torch.no_grad()
def test_the_branch_kept_is_the_one_asked_for(tmp_path: Path) -> None:
    model = add_auxiliary_norms(small())
    moved(model, seed=3)
    model.eval()
    for branch in ("clean", "adversarial"):
        folder = write_small(model, tmp_path / branch, branch=branch)
        with use_branch(model, branch):
            assert torch.equal(load_export(folder).model(images()), model(images()))
    clean, adversarial = (
        load_export(tmp_path / branch).model(images()) for branch in ("clean", "adversarial")
    )
    assert not torch.equal(clean, adversarial)
    with pytest.raises(ValueError, match='branch "aux" unknown'):
        write_small(model, tmp_path / "other", branch="aux")
    with pytest.raises(ValueError, match="no auxiliary branches"):
        write_small(small(), tmp_path / "other", branch="adversarial")


def test_the_callers_model_and_random_streams_stay_as_they_are(tmp_path: Path) -> None:
    model = add_auxiliary_norms(small()).to(memory_format=torch.channels_last).train()
    model(images()).sum().backward()
    before = copy.deepcopy(model.state_dict())
    strides = [parameter.stride() for parameter in model.parameters()]
    gradients = [parameter.grad for parameter in model.parameters()]
    stream = torch.get_rng_state()
    with use_branch(model, "adversarial"):
        folder = write_small(model, tmp_path / "export")
    load_export(folder)
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())
    assert [parameter.stride() for parameter in model.parameters()] == strides
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert model.training
    assert branch_names(model) == ("clean", "adversarial")


@torch.no_grad()
def test_half_precision_becomes_single_precision(tmp_path: Path) -> None:
    model = small().to(torch.bfloat16)
    folder = write_small(model, tmp_path / "export")
    loaded = load_export(folder).model
    assert {t.dtype for t in loaded.state_dict().values()} == {torch.float32, torch.int64}
    assert torch.equal(loaded(images()), model.float().eval()(images()))


def test_sync_batchnorm_is_written_as_batchnorm(tmp_path: Path) -> None:
    model = small()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    loaded = load_export(write_small(converted, tmp_path / "export")).model
    assert not any(isinstance(layer, nn.SyncBatchNorm) for layer in loaded.modules())
    assert torch.equal(loaded(images()), model.eval()(images()))


def test_a_layer_used_twice_is_written_under_both_names(tmp_path: Path) -> None:
    model = small()
    block = model.model.stages[0]
    block.conv2 = block.conv1
    loaded = load_export(write_small(model, tmp_path / "export")).model
    assert torch.equal(loaded(images()), model.eval()(images()))


def test_a_classifier_that_was_reset_is_exported_as_it_is(tmp_path: Path) -> None:
    plain = timm.create_model("test_resnet", in_chans=1)
    plain.reset_classifier(3)
    model = standardized(plain).eval()
    folder = write_small(model, tmp_path / "export")
    assert torch.equal(load_export(folder).model(images()), model(images()))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        write_small(small(), tmp_path)
    with pytest.raises(ValueError, match="a file, not a folder"):
        write_small(small(), tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    (tmp_path / "empty").mkdir()
    assert is_export(write_small(small(), tmp_path / "empty"))


def with_another_activation() -> Standardized:
    plain = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    plain.act1 = nn.Tanh()
    return standardized(plain)


def with_another_layer() -> Standardized:
    model = small()
    model.model.stages.append(nn.Conv2d(32, 32, 1))
    return model


def never_named() -> Standardized:
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    return standardized(net, mean=[0.5], std=[0.5])


def broken() -> Standardized:
    model = small()
    nn.init.constant_(model.model.fc.bias, float("nan"))
    return model


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (with_another_activation, "other outputs than the model.*layers exchanged by hand"),
        (
            with_another_layer,
            r"would not load again.*unknown.*stages\.3\.bias",
        ),
        (never_named, "could not be built again from a name"),
        (broken, "not finite"),
        (lambda: small(num_classes=4), "3 class names for 4 logits"),
    ],
)
def test_what_would_not_come_back_equal_is_refused(
    tmp_path: Path, build: Callable[[], Standardized], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        write_small(build(), tmp_path / "export")
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_mean_and_std_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"standardized\(model\)"):
        write_small(small().model, tmp_path / "export")


def test_options_that_json_cannot_hold_need_a_name(tmp_path: Path) -> None:
    plain = timm.create_model("test_resnet", num_classes=3, in_chans=1, act_layer=nn.SiLU)
    model = standardized(plain).eval()
    with pytest.raises(ValueError, match=r"act_layer=.*write_export\(options="):
        write_small(model, tmp_path / "export")
    with pytest.raises(ValueError, match="other outputs"):
        write_small(model, tmp_path / "export", options={"act_layer": "relu"})
    folder = write_small(model, tmp_path / "export", options={"act_layer": "silu"})
    assert torch.equal(load_export(folder).model(images()), model(images()))


def test_provenance_that_json_cannot_hold_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_small(small(), tmp_path / "export", provenance={"accuracy": float("nan")})
    assert list(tmp_path.iterdir()) == []


def truncate(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def exchange_weights(folder: Path) -> None:
    write_small(small(seed=9), folder / "other")
    (folder / "other" / "model.safetensors").replace(folder / "model.safetensors")


def edit(*path: str, value: Any) -> Callable[[Path], None]:
    """Set (or, for None, delete) an entry of `config.json`."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        *parents, last = path
        entry = config
        for parent in parents:
            entry = entry[parent]
        entry[last] = value
        if value is None:
            del entry[last]
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (truncate, ValueError, "cut off or changed"),
        (exchange_weights, ValueError, "cut off or changed"),
        (lambda folder: (folder / "model.safetensors").unlink(), FileNotFoundError, "missing"),
        (lambda folder: (folder / "config.json").unlink(), FileNotFoundError, "config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), ValueError, "not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), ValueError, "not an export"),
        (edit("advprop", value=None), ValueError, "not an export of advprop"),
        (edit("advprop", "format", value=3), ValueError, "format 3"),
        (edit("label_names", value=None), ValueError, "damaged.*label_names"),
        (edit("pretrained_cfg", "mean", value=3), ValueError, "damaged"),
        (edit("model_args", "width", value=16), ValueError, "of another architecture.*instead of"),
        (
            edit("model_args", "checkpoint_path", value="/x"),
            ValueError,
            "options has checkpoint_pa",
        ),
        (edit("model_args", "pretrained", value=True), ValueError, "options has pretrained"),
        (edit("model_args", value=[]), ValueError, "damaged, model_args: .* dictionary"),
        (edit("pretrained_cfg", "input_size", value=[3, 20_000, 20_000]), ValueError, "resized to"),
        (edit("pretrained_cfg", "input_size", value=[3, 10**30, 8]), ValueError, "input_size"),
        (edit("pretrained_cfg", "crop_pct", value=1e-9), ValueError, "crop_pct=1e-09"),
        (edit("label_names", value=["a", "b"]), ValueError, "of another architecture"),
        (edit("pretrained_cfg", "crop_mode", value=3), ValueError, "damaged, .*crop_mode"),
        (edit("architecture", value="test_resnett"), ValueError, "did you mean test_resnet"),
    ],
)
def test_damaged_exports_are_refused(
    tmp_path: Path,
    damage: Callable[[Path], None],
    error: type[Exception],
    message: str,
) -> None:
    folder = write_small(small(), tmp_path / "export")
    damage(folder)
    with pytest.raises(error, match=message):
        load_export(folder)


def test_what_is_no_export(tmp_path: Path) -> None:
    assert not is_export(tmp_path)
    assert not is_export(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_export(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"recipe": "mnist5k"}')  # a run's
    assert not is_export(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert is_export(tmp_path)
    with pytest.raises(ValueError, match="not an export of advprop"):
        load_export(tmp_path)


def test_everybody_may_read_what_was_written(tmp_path: Path) -> None:
    folder = write_small(small(), tmp_path / "export")
    readable = [path.name for path in folder.iterdir() if path.stat().st_mode & 0o444 == 0o444]
    assert sorted(readable) == FILES
