"""The examples run, and their weights are what they say."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.data import ImageNetInfo
from tiny import seeded, tiny_branched_net, tiny_images, tiny_labels, tiny_net
from torch import Tensor

import advprop
from advprop.auxiliary.branches import branch_names
from advprop.auxiliary.norm import AuxiliaryNorm
from advprop.methods.step import Context
from advprop.runs.folder import build_run_model
from advprop.training.optim import build_optimizer

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = (
    "data.image_size=32",
    "training.batch_size=10",
    "training.warmup_epochs=0",
    "evaluation.batch_size=10",
)
pytestmark = pytest.mark.filterwarnings("ignore:.*classifier has other classes:UserWarning")


@pytest.fixture(scope="module")
def examples() -> Iterator[tuple[ModuleType, ModuleType]]:
    sys.path.insert(0, str(EXAMPLES))
    yield importlib.import_module("lite0_weights"), importlib.import_module("finetune_lite0")
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def weights(examples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("lite0") / "lite0.safetensors"
    examples[0].write_weights(path)
    return path


@pytest.fixture(scope="module")
def digits(examples: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    examples[1].write_digits(folder, num_train=20, limit=1)
    return folder


def configuration(examples: Any, weights: Path, digits: Path, *overrides: str) -> advprop.RunConfig:
    found = dict(examples[1].configurations(weights, digits, 1, [*TINY, *overrides]))
    assert [*found] == ["advprop", "vanilla", "vanilla_equal_cost"]
    passes = [
        config.training.num_epochs * config.method.build().passes_per_image
        for config in found.values()
    ]
    assert passes == [3, 1, 3]
    config: advprop.RunConfig = found["advprop"]
    return config


def test_the_weights_are_the_packages(examples: Any, weights: Path) -> None:
    written = load_file(weights)
    assert written.keys() == timm.create_model("tf_efficientnet_lite0").state_dict().keys()
    package = examples[0].inside(examples[0].PACKAGE, examples[0].FILE)
    theirs = torch.load(package, map_location="cpu", weights_only=True)
    assert torch.equal(written["classifier.weight"], theirs["_fc.weight"])
    assert torch.equal(written["blocks.6.0.bn3.running_var"], theirs["_blocks.15._bn2.running_var"])


def test_photographs_are_recognised_as_the_example_says(examples: Any, weights: Path) -> None:
    found = examples[0].classify(weights, examples[0].photographs())
    stated = re.findall(r"^    (\w+)\.jpg +(\w+) (\d+) %", examples[0].__doc__, re.MULTILINE)
    assert [photograph for photograph, _, _ in stated] == ["china", "flower"]
    for (name, probability), (_, class_name, percent) in zip(
        (classes[0] for classes in found), stated, strict=True
    ):
        assert name == class_name
        assert 100 * probability == pytest.approx(float(percent), abs=1)


def test_labelled_photographs_of_imagenet(examples: Any, weights: Path) -> None:
    files = sorted(examples[0].inside("foolbox", "data").glob("imagenet_*_*.jpg"))
    assert len(files) == 20
    imagenet = ImageNetInfo()
    found = [classes[0][0] for classes in examples[0].classify(weights, files)]
    expected = [imagenet.index_to_description(int(file.stem.split("_")[2])) for file in files]
    # 18 with mean and std 0.5, 15 with ImageNet's
    assert sum(map(str.__eq__, found, expected)) >= 17


def test_branches_start_as_the_pretrained_layers(
    examples: Any, weights: Path, digits: Path
) -> None:
    config = configuration(examples, weights, digits)
    model = build_run_model(config, config.data.load(0))
    pretrained = load_file(weights)
    assert branch_names(model) == ("clean", "adversarial")
    norms = {
        name: layer
        for name, layer in model.model.named_modules()
        if isinstance(layer, AuxiliaryNorm)
    }
    assert len(norms) == 49
    for name, layer in norms.items():
        for branch in ("clean", "adversarial"):
            for key, value in layer.branches[branch].state_dict().items():
                assert torch.equal(value, pretrained[f"{name}.{key}"])
    groups = build_optimizer(model, config.training).param_groups
    assert len(groups) == 2
    decayed = replace(config.training, layer_decay=0.8)
    scales = {group["lr_scale"] for group in build_optimizer(model, decayed).param_groups}
    assert sorted(scales, reverse=True) == pytest.approx(
        [0.8**depth for depth in range(len(scales))]
    )
    assert len(scales) >= 8


def test_from_weights_to_timm(
    examples: Any, weights: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One epoch with a frozen stem and layer decay, tested, exported, and loaded by timm."""
    config = configuration(
        examples, weights, digits, "training.frozen_layers=1", "training.layer_decay=0.8"
    )
    examples[1].train_and_test("advprop", config, tmp_path / "run")
    assert re.search(
        r"advprop +seed 0 +3 passes .* validation .*%.* test .*%", capsys.readouterr().out
    )
    trained, pretrained = advprop.load_run(tmp_path / "run").model.model, load_file(weights)
    after = trained.state_dict()
    assert torch.equal(after["conv_stem.weight"], pretrained["conv_stem.weight"])
    for branch in ("clean", "adversarial"):
        for kind in ("weight", "bias"):
            key = f"bn1.branches.{branch}.{kind}"
            assert torch.equal(after[key], pretrained[f"bn1.{kind}"])
            assert moved(after[f"blocks.0.0.bn1.branches.{branch}.{kind}"], pretrained, kind)
    assert examples[1].exported_to_timm(tmp_path / "run", tmp_path / "export")


def moved(tensor: Tensor, pretrained: dict[str, Tensor], kind: str) -> bool:
    return not torch.equal(tensor, pretrained[f"blocks.0.0.bn1.{kind}"])


@pytest.mark.parametrize("num_steps", [0, 1, 3])
def test_the_library_leaves_the_gradients_of_the_paper_in_one_file(num_steps: int) -> None:
    spec = importlib.util.spec_from_file_location("one_file", EXAMPLES / "advprop_in_one_file.py")
    assert spec is not None
    assert spec.loader is not None
    one_file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(one_file)
    images, labels = tiny_images(), tiny_labels()
    theirs = one_file.add_branches(tiny_net())
    strength = {"step_size": 0.02, "num_steps": num_steps}
    one_file.advprop_step(theirs, images, labels, epsilon=0.05, generator=seeded(), **strength)
    ours = tiny_branched_net()
    attack = advprop.PGD(threat_model=advprop.Linf(epsilon=0.05), **strength)
    context = Context(generator=seeded())
    advprop.AdvProp(attack=attack).forward_backward(ours, images, labels, context)
    pairs = list(zip(theirs.parameters(), ours.parameters(), strict=True))
    assert len(pairs) == 13
    assert all(torch.equal(a.grad, b.grad) for a, b in pairs)
    assert all(torch.equal(*pair) for pair in zip(theirs.buffers(), ours.buffers(), strict=True))
    kept = one_file.remove_branches(theirs).state_dict()
    assert kept.keys() == advprop.remove_auxiliary_norms(ours).state_dict().keys()


def test_the_notebook_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = json.loads((EXAMPLES / "advprop_in_ten_minutes.ipynb").read_text())
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] for cell in cells if "print(" in "".join(cell["source"]))
    scope: dict[str, Any] = {}
    for cell in cells:
        exec("".join(cell["source"]).replace("epochs = 8", "epochs = 2"), scope)
    printed = capsys.readouterr().out
    accuracies = [float(found) for found in re.findall(r"(?:clean|noise) (\d+\.\d) %", printed)]
    assert len(accuracies) == 4
    assert min(accuracies) > 50
    assert printed.rstrip().endswith("True")
