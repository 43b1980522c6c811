"""Models of timm's by name on the command line: what is printed, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from command_line import Cli
from PIL import Image
from safetensors.torch import save_file

from advprop.suites.imagenet.classes import imagenet_a_wnids


def test_a_set_of_imagenets_is_tested_by_name(cli: Cli, tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    for wnid in imagenet_a_wnids():
        (tmp_path / "imagenet-a" / wnid).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "imagenet-a" / wnid / "1.jpg")
    ended = cli(
        *("evaluate", "test_resnet", "--checkpoint", tmp_path / "w.safetensors"),
        *("--data", f"imagenet_a={tmp_path / 'imagenet-a'}", "--json", tmp_path / "found.json"),
    )
    assert ended.code == 0, ended
    assert (
        "accuracy 0.50% (95 % interval 0.0% to 1.5%) on 200 images" in ended.out
    )  # all images are equal, and one of 200 is right
    assert "the logits are cut to the set's 200 classes" in ended.out
    assert "warning" in ended.err
    assert "the published set has 7,500" in ended.err
    one = tmp_path / "one" / "n01440764"
    one.mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(one / "1.jpg")
    weights = ("--checkpoint", tmp_path / "w.safetensors")
    ended = cli("evaluate", "test_resnet", *weights, "--data", f"clean={one.parent}")
    assert "worst class n01440764 (tench) 0.0%" in ended.out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["suites"]["imagenet_a"]["imagenet_a_accuracy"] == 1 / 200
    assert found["suites"]["imagenet_a"]["num_classes"] == 200


WRONG = {
    "no images": (["test_resnet"], "--data clean=DIR"),
    "a suite without images": (
        ["test_resnet", "--suite", "clean,sketch", "--data", "clean={}/set"],
        'suite "sketch" needs its images: --data sketch=DIR',
    ),
    "nearly a name": (["test_resnett"], "no model of timm's (timm has test_resnet"),
    "unknown tag": (["test_resnet.foo", "--data", "clean={}/set"], "no pretrained weights 'foo'"),
    "weights of a run": (
        ["test_resnet", "--weights", "last", "--data", "clean={}/set"],
        "--weights",
    ),
    "no such checkpoint": (
        ["test_resnet", "--checkpoint", "none.pt", "--data", "clean={}/set"],
        "there is no such checkpoint",
    ),
    "wrong layout": (
        ["test_resnet", "--checkpoint", "{}/w.safetensors", "--data", "imagenet_a={}/set"],
        "ImageNet-A is 200 class folders, 200 are missing (n01498041 (stingray), ",
    ),
    "unknown class": (
        ["test_resnet", "--checkpoint", "{}/w.safetensors", "--data", "clean={}/set"],
        "classes that the model does not know (cat)",
    ),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_mistake_gives_one_message(mistake: str, cli: Cli, tmp_path: Path) -> None:
    arguments, expected = WRONG[mistake]
    (tmp_path / "set" / "cat").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(tmp_path / "set" / "cat" / "1.png")
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    ended = cli("evaluate", *(argument.format(tmp_path) for argument in arguments))
    assert ended.code == 2, ended
    assert expected in ended.err
    assert "Traceback" not in ended.err
