"""`plan`: sizes, totals, devices, and the command that prints them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms
from advprop.cli import plan as command
from advprop.config import RunConfig
from advprop.config.methods import METHODS
from advprop.config.overrides import apply_overrides
from advprop.config.run import ModelConfig
from advprop.cost.planning import DataSizes, data_sizes, plan
from advprop.cost.timing import images_to_try, minutes_here
from advprop.recipes.builtin import digits
from advprop.recipes.images import from_scratch

SMALL = {"num_images": 1000, "num_classes": 10}


NET = (
    "model.name=small_resnet",
    "model.mean=[0.5, 0.5, 0.5]",
    "model.std=[0.5, 0.5, 0.5]",
    "data.image_size=32",
)


def small_images(*overrides: str) -> RunConfig:
    """A small net on images of 32 pixels: steps of 64 images for 60 epochs."""
    return apply_overrides(from_scratch(), [*NET, *overrides])


def efficientnet(recipe: str = "imagenet_efficientnet_b0") -> RunConfig:
    model = ModelConfig(name="tf_efficientnet_b0", mean=(0.5,) * 3, std=(0.5,) * 3)
    config = small_images("data.expected_sizes=[1281167,1000]")
    return config.model_copy(update={"recipe": recipe, "model": model})


def run_plan(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(command.main)
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_totals_follow_from_steps_and_flops_an_image() -> None:
    found = plan(small_images(), **SMALL, device_tflops=100.0, utilisation=0.5)
    assert found["steps_per_epoch"] == 1000 // 64
    assert found["steps"] == 60 * 15
    cost = found["methods"]["advprop"]
    flops = cost["flops"]
    assert flops["per_image"] == 2 * flops["training_pass"] + flops["attack_step"]
    assert flops["total"] == 60 * 15 * 64 * flops["per_image"]
    assert cost["device_hours"] == pytest.approx(flops["total"] / 50e12 / 3600)
    assert cost["passes_per_image"] == 3
    assert found["methods"]["vanilla"]["passes_per_image"] == 1
    vanilla = found["methods"]["vanilla"]["flops"]["per_image"]
    assert cost["times_vanilla"] == flops["per_image"] / vanilla


def test_vanilla_stands_alone() -> None:
    assert list(plan(small_images().with_method("vanilla"), **SMALL)["methods"]) == ["vanilla"]


def test_rates_change_hours_and_nothing_else() -> None:
    slow, fast = (plan(small_images(), **SMALL, device_tflops=rate) for rate in (100.0, 200.0))
    for name in ("vanilla", "advprop"):
        slow_cost, fast_cost = slow["methods"][name], fast["methods"][name]
        assert slow_cost.pop("device_hours") == 2 * fast_cost.pop("device_hours")
        assert slow_cost == fast_cost


def test_branches_add_the_parameters_of_their_layers_and_the_export_has_none() -> None:
    parameters = plan(small_images(), **SMALL)["methods"]["advprop"]["parameters"]
    model = small_images().model.build(num_classes=10, image_shape=(3, 32, 32))
    plain = sum(parameter.numel() for parameter in model.parameters())
    norms = [layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    added = sum(parameter.numel() for layer in norms for parameter in layer.parameters())
    assert parameters == {"plain": plain, "with_branches": plain + added}
    assert added > 0
    exported = remove_auxiliary_norms(add_auxiliary_norms(model))
    assert sum(parameter.numel() for parameter in exported.parameters()) == parameters["plain"]


@pytest.mark.parametrize(
    ("num_images", "parts", "devices", "share", "step"),
    [
        (200, 1, 1, 64, 64),
        (200, 4, 8, 2, 64),
        (40, 1, 1, 40, 40),
        (40, 2, 1, 20, 40),
        (9, 1, 4, 2, 8),
    ],
)
def test_images_go_through_at_once_by_device_and_part(
    num_images: int, parts: int, devices: int, share: int, step: int
) -> None:
    config = small_images(f"training.gradient_accumulation={parts}").with_method("vanilla")
    found = plan(config, num_images=num_images, num_classes=2, devices=devices)
    assert (found["images_per_device"], found["batch_size"]) == (share, step)


@pytest.mark.parametrize(
    ("batch_size", "parts", "devices", "message"),
    [
        (64, 1, 0, "at least 1"),
        (64, 1, 128, "batch_size=64 is smaller than 128 devices: .* multiple of 128"),
        (64, 1, 24, "batch_size=64 cannot be divided by 24 devices"),
        (64, 2, 64, "smaller than 64 devices with gradient_accumulation 2"),
    ],
)
def test_a_batch_that_cannot_be_shared(
    batch_size: int, parts: int, devices: int, message: str
) -> None:
    config = small_images(
        f"training.batch_size={batch_size}", f"training.gradient_accumulation={parts}"
    )
    with pytest.raises(ValueError, match=message):
        plan(config, **SMALL, devices=devices)


def test_memory_is_that_of_so_many_devices() -> None:
    one, eight = (plan(small_images(), **SMALL, devices=devices) for devices in (1, 8))
    assert (one["images_per_device"], eight["images_per_device"]) == (64, 8)
    memory = {
        count: found["methods"]["vanilla"]["memory"] for count, found in ((1, one), (8, eight))
    }
    assert memory[1]["activations"] == pytest.approx(8 * memory[8]["activations"], rel=0.02)
    assert (memory[1]["buckets"], memory[8]["buckets"]) == (0, memory[8]["gradients"])


def vanilla_cost(*overrides: str) -> dict[str, Any]:
    config = small_images(*overrides).with_method("vanilla")
    found: dict[str, Any] = plan(config, **SMALL)["methods"]["vanilla"]
    return found


def test_fast_costs_what_it_attacks_twice() -> None:
    found = plan(small_images().with_method("fast"), **SMALL, devices=2)["methods"]
    fast, vanilla = found["fast"], found["vanilla"]
    assert (fast["passes_per_image"], fast["attack_passes"]) == (1.2, 0)
    assert fast["training_passes"] == 38 / 32  # 6 of a device's 32 images, rounded from 6.4
    assert 38 / 32 < fast["flops"]["per_image"] / vanilla["flops"]["per_image"] < 1.25
    with pytest.raises(ValueError, match=r"0\.2 of 2 images makes 0 adversarial"):
        plan(small_images().with_method("fast"), **SMALL, devices=32)


def test_what_images_carry_takes_room_on_disk() -> None:
    found = plan(small_images().with_method("advprop_lean"), **SMALL)["methods"]
    values = 2 * 1000 * 3 * 32 * 32  # int8, two slots an image
    assert values < found["advprop_lean"]["bytes_on_disk"] < 1.01 * values
    assert found["vanilla"]["bytes_on_disk"] == 0


def test_training_settings_count() -> None:
    base = vanilla_cost()["memory"]
    parts = vanilla_cost("training.gradient_accumulation=4")["memory"]
    assert parts["activations"] < base["activations"] / 3
    half = vanilla_cost("training.mixed_precision=bf16")["memory"]
    assert half["activations"] == pytest.approx(base["activations"] / 2, rel=0.05)
    assert half["half_weights"] == base["gradients"] / 2


def test_frozen_layers_cost_less() -> None:
    base, frozen = (
        vanilla_cost("model.name=resnet10t", f"training.frozen_layers={count}") for count in (0, 3)
    )
    assert frozen["flops"]["training_pass"] < base["flops"]["training_pass"]
    assert frozen["memory"]["gradients"] < base["memory"]["gradients"]


def test_weights_are_neither_downloaded_nor_read() -> None:
    pretrained = vanilla_cost("model.name=resnet10t", "model.pretrained=true")
    assert pretrained["parameters"]["plain"] > 4_900_000
    assert vanilla_cost("model.checkpoint=missing.safetensors") == vanilla_cost()


def sizes_of(config: RunConfig, **given: int) -> DataSizes:
    return data_sizes(config, **given)[0]


def test_sizes_are_given_or_those_of_the_data(tmp_path: Path) -> None:
    for name in ("blue", "red"):
        (tmp_path / name).mkdir()
        for number in range(20):
            Image.new("RGB", (8, 8), name).save(tmp_path / name / f"{number:02}.png")
    config = small_images(f"data.root={tmp_path}")
    found = sizes_of(config)
    assert found.num_images == len(config.data.load(config.seed).train) < 40
    assert (found.num_classes, found.image_shape) == (2, (3, 32, 32))
    assert sizes_of(config, num_images=7).num_images == 7
    assert sizes_of(small_images(), **SMALL).image_shape == (3, 32, 32)
    assert sizes_of(digits(), num_classes=4).num_images == 300
    stated = small_images("data.num_train=77")
    assert sizes_of(stated, num_classes=2).num_images == 77


def test_imagenet_need_not_be_here(tmp_path: Path) -> None:
    found = sizes_of(efficientnet())
    assert (found.num_images, found.num_classes) == (1_281_167, 1000)
    elsewhere = efficientnet().data.model_copy(update={"root": tmp_path / "elsewhere"})
    assert sizes_of(efficientnet().model_copy(update={"data": elsewhere})) == found
    some = efficientnet().data.model_copy(update={"num_train": 5000})
    assert sizes_of(efficientnet().model_copy(update={"data": some})).num_images == 5000


def test_other_data_that_are_here_are_not_taken_for_imagenet(tmp_path: Path) -> None:
    embedded = apply_overrides(efficientnet(), ["data.kind=builtin", "data.name=digits"])
    found = sizes_of(embedded)
    assert (found.num_images, found.num_classes) == (1000, 10)
    shards = apply_overrides(efficientnet(), ["data.kind=shards", f"data.train={tmp_path}"])
    with pytest.raises(ValueError, match="no shards"):
        sizes_of(shards)
    missing = apply_overrides(shards, [f"data.train={tmp_path}/none"])
    assert sizes_of(missing) == sizes_of(efficientnet())


@pytest.mark.parametrize(
    ("options", "overrides", "message"),
    [
        ({}, [], "--images N --classes N"),
        ({"num_images": 100}, [], "--images N --classes N"),
        ({**SMALL, "devices": 0}, [], "at least 1"),
        ({**SMALL, "devices": 3}, [], "batch_size=64 cannot be divided by 3 devices"),
        ({**SMALL, "device_tflops": 0.0}, [], "device_tflops 0"),
        ({**SMALL, "utilisation": 1.5}, [], "at most 1"),
        ({"num_images": 0, "num_classes": 2}, [], "images 0"),
        (SMALL, ["model.name=resnet8"], "resnet8"),
        (SMALL, ["model.name=vgg11", "data.image_size=8"], "vgg11 cannot be run on .*8, 8"),
        (SMALL, ["training.optimizer=sgdd"], "sgdd"),
    ],
)
def test_wrong_inputs(options: dict[str, float], overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan(small_images(*overrides), **options)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("tf_efficientnet_b0", 5_288_548),
        ("tf_efficientnet_b8", 87_413_142),
        ("resnet50", 25_557_032),
        ("vit_tiny_patch16_224", 5_717_416),
    ],
)
def test_large_models_are_built_without_memory(name: str, parameters: int) -> None:
    config = efficientnet().model.model_copy(update={"name": name})
    with torch.device("meta"):
        model = config.build(num_classes=1000, image_shape=(3, 224, 224))
    assert all(tensor.is_meta for tensor in (*model.parameters(), *model.buffers()))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("kind", ["advprop_lean", "advprop"])
def test_the_command_tells_of_the_disk_where_it_is_needed(kind: str) -> None:
    small = [f"--set={setting}" for setting in NET]
    sizes = ("--images=1000", "--classes=10", "--devices=1")
    done = run_plan("from_scratch", *small, "--method", kind, *sizes)
    assert done.exit_code == 0
    kept = [line for line in done.output.splitlines() if line.startswith("kept on disk")]
    assert [line.split()[-2:] for line in kept] == ([["6.19", "MB"]] if kind != "advprop" else [])


def test_the_command_prints_80_columns_and_writes_json(tmp_path: Path) -> None:
    arguments = ("--images=1000", "--classes=10", "--devices=1", "--json", tmp_path / "plan.json")
    small = [word for override in NET for word in ("--set", override)]
    done = run_plan("from_scratch", *small, "--method", "adversarial_then_clean", *arguments)
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert max(map(len, done.output.splitlines())) <= 80
    for words in ("passes per image", "They assume 312 TFLOP/s per device"):
        assert words in done.output
    written = json.loads((tmp_path / "plan.json").read_text())
    config = apply_overrides(from_scratch(), NET).with_method("adversarial_then_clean")
    assert written == json.loads(json.dumps(plan(config, **SMALL)))


def test_the_command_begins_with_what_was_found_and_minutes_on_this_machine(tmp_path: Path) -> None:
    for name in ("Training/a", "Training/b", "Testing/a", "Testing/b", "Training/a/@eaDir"):
        (tmp_path / name).mkdir(parents=True)
        for number in range(12):
            Image.new("RGB", (40, 40), (9 * number + 99, 9, 9)).save(
                tmp_path / name / f"{number}.jpg"
            )
    small = [word for override in NET for word in ("--set", override)]
    arguments = ["--set", f"data.root={tmp_path}", "--json", tmp_path / "plan.json"]
    done = run_plan("from_scratch", *small, *arguments)
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "2 classes (a, b)" in words
    assert "24 test images (Testing/)" in words
    assert "skipped: 1 folders @eaDir" in words
    assert "small_resnet, method advprop: 3 passes per image" in words
    rows = {line.split()[0]: line.split()[1:] for line in done.output.splitlines() if line.strip()}
    assert set(METHODS) <= set(rows)
    assert rows["advprop"][0] == "3"
    assert "vanilla was timed just now on this machine" in words
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["data_found"]["sources"]["test"] == "Testing/"
    assert plan["timed_here"]["steps"] > 0
    assert list(plan["minutes_here"]) == list(plan["methods"])


def test_methods_that_cannot_train_the_model_are_told_with_the_reason() -> None:
    config = small_images("training.batch_size=2").with_method("vanilla")
    found = plan(config, **SMALL, methods=("fast", "mixed"))
    assert list(found["methods"]) == ["vanilla", "mixed"]
    assert list(found["unsuitable"]) == ["fast"]
    assert "makes 0 adversarial" in found["unsuitable"]["fast"]
    with pytest.raises(ValueError, match="makes 0 adversarial"):
        plan(config.with_method("fast"), **SMALL)


def test_minutes_follow_from_the_steps_that_were_timed_and_chance_stays_as_it_was() -> None:
    config, before = small_images(), torch.random.get_rng_state()
    planned = plan(config, **SMALL)
    here = minutes_here(config, planned)
    assert torch.equal(torch.random.get_rng_state(), before)
    timed, minutes = here["timed_here"], here["minutes_here"]
    images = planned["steps"] * planned["batch_size"]
    assert minutes["vanilla"] == timed["seconds_per_image"] * images / 60
    for name, cost in planned["methods"].items():
        assert minutes[name] == pytest.approx(minutes["vanilla"] * cost["times_vanilla"])


def test_models_that_are_too_large_to_try_here_are_not_tried() -> None:
    assert images_to_try(1e15, 64) == 0
    assert images_to_try(1.0, 64) == 64
    assert 2 <= images_to_try(1e10, 64) < 64
