"""What is written for other programs gives the same logits, or is refused."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import advprop.exports.portable as portable
from advprop.data.preprocessing import Preprocessing
from advprop.exports.format import ExportInfo
from advprop.exports.portable import check_formats, write_portable
from advprop.models.build import build_model
from advprop.models.standardize import Standardized, standardized

SHAPE = (1, 28, 28)
NAMES = ("cat", "dog", 'a "<b>" é')
MEAN, STD = (0.41, 0.37, 0.59), (0.21, 0.33, 0.1)
OTHERS = ("onnx", "torch_export")


@torch.no_grad()
def moved(model: Standardized) -> Standardized:
    """Weights and statistics away from where they were initialised, in eval mode."""
    torch.manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and name not in ("mean", "std"):
            tensor.mul_(torch.rand_like(tensor).add_(0.5)).add_(0.02 * torch.rand_like(tensor))
    return model.eval()


def linear() -> Standardized:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    return standardized(net, mean=[0.4], std=[0.2]).eval()


def images(count: int, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(count))


def onnx_logits(path: Path, batch: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])


def write(
    model: Standardized,
    folder: Path,
    formats: Sequence[str],
    shape: tuple[int, int, int] = (1, 4, 4),
) -> dict[str, dict[str, Any]]:
    preprocessing = Preprocessing(image_shape=shape, interpolation="bilinear", crop_pct=0.9)
    info = ExportInfo(class_names=NAMES, preprocessing=preprocessing, provenance={}, options={})
    return write_portable(model, folder, info, formats)


def test_a_small_network_in_both_forms(tmp_path: Path) -> None:
    layers = nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
    net = nn.Sequential(*layers, nn.Linear(8 * 13 * 13, 3))
    model = moved(standardized(net, mean=[0.13], std=[0.31]))
    stream = torch.get_rng_state()
    found = write(model, tmp_path, ["hub", *OTHERS], SHAPE)
    assert torch.equal(torch.get_rng_state(), stream)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.pt2"]
    assert {file: check["format"] for file, check in found.items()} == {
        "model.onnx": "onnx",
        "model.pt2": "torch_export",
    }
    assert found["model.pt2"]["max_difference"] == 0
    assert 0 < found["model.onnx"]["max_difference"] < found["model.onnx"]["tolerance"]
    program = torch.export.load(tmp_path / "model.pt2").module()
    for count in (1, 2, 7):  # standardisation is inside, the batch is free
        with torch.no_grad():
            expected = model(images(count))
            assert torch.equal(program(images(count)), expected)
        torch.testing.assert_close(onnx_logits(tmp_path / "model.onnx", images(count)), expected)
    check_what_is_told(tmp_path, model)
    here = str(Path(portable.__file__).parent).encode()
    assert here not in (tmp_path / "model.onnx").read_bytes()
    with zipfile.ZipFile(tmp_path / "model.pt2") as archive:
        assert not any(here in archive.read(name) for name in archive.namelist())


def check_what_is_told(folder: Path, model: Standardized) -> None:
    expected = {
        "class_names": list(NAMES),
        "image_size": [28, 28],
        "colours": "grey",
        "input_range": [0, 1],
        "mean_inside": model.mean.flatten().tolist(),
        "std_inside": model.std.flatten().tolist(),
        "interpolation": "bilinear",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "producer": "advprop",
    }
    extra = {"advprop.json": ""}
    torch.export.load(folder / "model.pt2", extra_files=extra)
    assert json.loads(extra["advprop.json"]) == expected
    import onnxruntime

    about = onnxruntime.InferenceSession(folder / "model.onnx").get_modelmeta().custom_metadata_map
    assert {name: json.loads(about[name]) for name in expected} == expected
    assert json.loads(about["opset"]) >= 17
    assert about["Image.BitmapPixelFormat"] == "Gray8"
    assert about["Image.NominalPixelRange"] == "Normalized_0_1"


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("small_resnet", 28, {"width": 8, "mean": MEAN, "std": STD}),
        ("resnet18", 33, {}),
        ("tf_efficientnet_b0", 63, {}),  # "same" padding of odd sizes
        ("vit_tiny_patch16_224", 32, {"img_size": 32}),
        ("convnext_atto", 32, {}),
    ],
)
def test_families_go_through(tmp_path: Path, name: str, size: int, options: dict[str, Any]) -> None:
    model = moved(build_model(name, num_classes=3, in_chans=3, **options))
    shape = (3, size, size)
    found = write(model, tmp_path, OTHERS, shape)
    assert found["model.pt2"]["max_difference"] == 0
    with torch.no_grad():
        expected = model(images(5, shape))
    scale = float(expected.abs().max())
    assert scale > 1e-6
    torch.testing.assert_close(
        onnx_logits(tmp_path / "model.onnx", images(5, shape)), expected, rtol=0, atol=1e-3 * scale
    )


def test_hub_alone_writes_nothing_here(tmp_path: Path) -> None:
    assert write(linear(), tmp_path, ["hub"]) == {}
    assert list(tmp_path.iterdir()) == []


class Branching(nn.Module):
    """Its path depends on the pixels, which no exported graph can follow."""

    def forward(self, images: Tensor) -> Tensor:
        flat = images.flatten(1)
        return flat if flat.sum().item() > 3 else -flat


def test_an_architecture_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    model = standardized(Branching(), mean=[0.4], std=[0.2]).eval()
    with pytest.raises(ValueError, match=r"cannot be written as torch_export \(.*leave the format"):
        write(model, tmp_path, ["torch_export"])


@pytest.mark.parametrize("wrong", [1.01, float("nan")])
def test_other_logits_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    model = linear()
    file, write_file = portable._WRITERS["torch_export"]

    def off(program: Any, *to: Any) -> Any:
        logits_fn = write_file(program, *to)
        return lambda batch: logits_fn(batch) * wrong

    monkeypatch.setitem(portable._WRITERS, "torch_export", (file, off))
    with pytest.raises(ValueError, match=r"gives other logits: they differ by .* at most"):
        write(model, tmp_path, ["torch_export"])


def test_a_full_disk_stays_an_error_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError("No space left on device")

    monkeypatch.setitem(portable._WRITERS, "torch_export", ("model.pt2", full))
    with pytest.raises(OSError, match="No space left"):
        write(linear(), tmp_path, ["torch_export"])


def test_formats_and_their_packages_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    check_formats(["hub", *OTHERS])
    with pytest.raises(ValueError, match='format "tflite" unknown: choose from hub, onnx'):
        check_formats(["hub", "tflite"])
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    check_formats(["hub", "torch_export"])
    with pytest.raises(ImportError, match=r"needs onnxscript: pip install 'advprop\[onnx\]'"):
        check_formats(["onnx"])
