"""The ImageNet recipe, cut short, on a folder of real images: from the command to timm's model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
import torch
from command_line import Cli
from PIL import Image

import advprop
from advprop.cost.planning import plan
from advprop.data.sets.builtin import load_builtin
from advprop.recipes import RECIPES

SHORT = [
    "training.num_epochs=1",
    "training.warmup_epochs=0",
    "training.batch_size=8",
    "training.learning_rate=0.001",
    "training.mixed_precision=no",
    "training.num_workers=1",
]


@pytest.fixture
def digits_folder(tmp_path: Path) -> Path:
    """Real handwritten digits of MNIST, a folder for each."""
    data = load_builtin("mnist5k", num_train=40)
    for name, split in (("train", data.train), ("val", data.validation)):
        for index in range(0, len(split), max(1, len(split) // 40)):  # they are sorted by class
            folder = tmp_path / "digits" / name / str(split.labels[index].item() % 2)
            folder.mkdir(parents=True, exist_ok=True)
            pixels = (split.image(index)[0] * 255).to(torch.uint8).numpy()
            Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "digits"


@pytest.mark.full
def test_efficientnet_b0_at_native_resolution(
    cli: Cli, digits_folder: Path, tmp_path: Path
) -> None:
    overrides = [f"--set={setting}" for setting in [f"data.root={digits_folder}", *SHORT]]
    out = tmp_path / "run"
    ended = cli("train", "imagenet_efficientnet_b0", *overrides, "--out", out, "--quiet")
    assert ended.code == 0, ended.err
    (entry,) = (json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines())
    assert entry["step"] == 5
    assert not [alarm for alarm in entry["alarms"] if "branch" in alarm]
    assert 0.5 / 255 < entry["perturbation"] < 1 / 255
    assert cli("export", out, "--out", tmp_path / "model").code == 0
    loaded = timm.create_model(f"local-dir:{tmp_path / 'model'}", pretrained=True).eval()
    assert list(loaded.pretrained_cfg["mean"]) == [0.5, 0.5, 0.5]
    run = advprop.load_run(out)
    images = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        assert torch.equal(loaded((images - 0.5) / 0.5), run.model(images))


def test_the_recipes_say_what_the_sources_say() -> None:
    """The table of sizes, and TensorFlow's convention for momentum and epsilon of batch norm."""
    for size, pixels, dropout, steps in ((0, 224, 0.2, 1), (3, 300, 0.3, 3), (8, 672, 0.5, 5)):
        config = RECIPES[f"imagenet_efficientnet_b{size}"].build()
        assert config.data.image_size == pixels
        assert config.model.options["drop_rate"] == dropout
        assert config.method.attack.num_steps == steps
        assert config.training.learning_rate == pytest.approx(0.128)
    config = RECIPES["imagenet_efficientnet_b0"].build()
    with torch.device("meta"):
        model = config.model.build(num_classes=1000, image_shape=(3, 224, 224))
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert {(norm.momentum, norm.eps) for norm in norms} == {(0.01, 1e-3)}
    assert model.model.drop_rate == 0.2


COSTLY = [name for name in RECIPES if name.startswith("imagenet")]
QUICK = ("imagenet_resnet50", "imagenet_efficientnet_b0", "imagenet_efficientnet_b3")


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name in QUICK else pytest.mark.full) for name in COSTLY],
)
def test_the_hours_that_a_recipe_tells_are_those_of_its_plan(name: str) -> None:
    found = plan(RECIPES[name].build())
    cost = found["methods"]
    told = RECIPES[name].time
    assert told.startswith(f"{cost['advprop']['passes_per_image']:g} passes an image for ")
    assert f"for {found['epochs']} epochs at {found['data']['image_shape'][1]} pixels" in told
    hours = {method: f"{round(cost[method]['device_hours']):,}" for method in cost}
    assert f"; {hours['advprop']} device-hours (vanilla {hours['vanilla']}) by" in told
    rates = found["assumptions"]
    assert f"{rates['device_tflops']:g} TFLOP/s a device, of which {rates['utilisation']:g}" in told
    assert "unconfirmed" in RECIPES[name].result


def test_the_list_of_recipes_fits_80_columns_and_its_commands_can_be_copied(cli: Cli) -> None:
    out = cli("recipes").out
    assert max(map(len, out.splitlines())) <= 80
    joined = " ".join(out.replace("\\\n", " ").split())
    for recipe in RECIPES.values():
        for text in (recipe.command, recipe.time, recipe.result):
            assert text in joined


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_opens_with_what_it_takes(name: str, cli: Cli) -> None:
    recipe = RECIPES[name]
    assert name in recipe.command
    assert recipe.time
    assert recipe.result
    config = recipe.build()
    assert config.recipe == name
    assert config.with_method("vanilla").method.build().passes_per_image == 1
    mixed = config.with_method("mixed").method
    assert mixed.attack == config.method.attack
