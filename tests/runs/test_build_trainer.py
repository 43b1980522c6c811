"""What a run's trainer is put together with."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from tiny import tiny_branched_net

from advprop.attacks.threat_models import Linf
from advprop.config.methods import METHODS, method_config
from advprop.config.overrides import apply_overrides
from advprop.data.decoding import DecodedSplit
from advprop.data.splits import Key
from advprop.methods.advprop_lean import AdvPropLean
from advprop.methods.base import Method
from advprop.methods.fast import Fast
from advprop.methods.vanilla import Vanilla
from advprop.recipes.builtin import digits
from advprop.runs.trainer import (
    build_trainer,
    with_synchronised_statistics,
)
from advprop.runs.training import train
from advprop.shapes import Batch


def test_validation_images_are_read_by_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process that decodes all validation images would keep a GPU waiting."""
    for number in range(40):
        folder = tmp_path / "photos" / ("blue", "red")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 16), 6 * number).save(folder / f"{number}.png")
    settings = [f"data.root={tmp_path / 'photos'}", "data.image_size=16", "data.channels=1"]
    settings += ["data.num_train=none", "training.batch_size=4", "evaluation.batch_size=2"]
    base = apply_overrides(digits().with_method("vanilla"), ["data.kind=folder", *settings])
    whole = DecodedSplit.__getitems__
    readers = tmp_path / "readers"

    def noted(self: DecodedSplit, keys: list[Key]) -> Batch:
        with readers.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return whole(self, keys)

    monkeypatch.setattr(DecodedSplit, "__getitems__", noted)
    accuracies, processes = [], []
    for num_workers in (0, 2):
        config = apply_overrides(base, [f"training.num_workers={num_workers}"])
        data = config.data.load(config.seed)
        trainer = build_trainer(config, data, tmp_path, Accelerator(cpu=True))
        readers.write_text("")
        accuracies.append(trainer.validate(trainer.plain_model))
        processes.append(set(map(int, readers.read_text().split())))
    assert accuracies[0] == accuracies[1]
    assert processes[0] == {os.getpid()}
    assert len(processes[1]) == 2
    assert os.getpid() not in processes[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("training.batch_size=64 training.gradient_accumulation=4", "30 images a process cannot"),
        ("training.batch_size=64 data.sampling.repeats=5", "multiple of 5"),
        ("data.num_train=15 data.mixing.mixup=1", "mixing needs pairs"),
    ],
)
def test_batches_that_cannot_be_made_are_refused_before_the_folder_is_begun(
    tmp_path: Path, settings: str, message: str
) -> None:
    config = apply_overrides(digits(), ["data.num_train=30", *settings.split()])
    folder = tmp_path / "run"
    with pytest.raises(ValueError, match=message):
        train(config, folder, quiet=True)
    assert not list(folder.glob("[!.]*"))


def test_images_of_a_set_smaller_than_a_batch_are_counted_once(tmp_path: Path) -> None:
    settings = ["data.num_train=30", "training.batch_size=64", "training.num_epochs=1"]
    config = apply_overrides(
        digits().with_method("vanilla"), [*settings, "training.warmup_epochs=0"]
    )
    train(config, tmp_path / "run", quiet=True)
    entry = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    told = entry["images_per_second"] * entry["seconds"]  # seconds are rounded to 0.001
    assert told == pytest.approx(30, abs=entry["images_per_second"] * 0.0006)


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("advprop", ["form=separate"], 'form="separate" on several processes.*auto, joint or'),
        ("fine_grained", ["form=separate"], 'form="separate" on several.*auto, joint or summed'),
        ("fast", ["form=separate"], 'form="separate" on several processes.*auto, joint'),
        (
            "pyramid",
            ["form=separate", "auxiliary_branch=true"],
            "set method.form to auto or summed",
        ),
        ("universal", ["form=separate", "auxiliary_branch=true"], "DistributedDataParallel waits"),
        ("fast", ["attacked_fraction=0"], "attacked_fraction 0 on several.*or train vanilla"),
    ],
)
def test_what_distributed_training_cannot_do_is_refused_before_anything_is_trained(
    method: str, settings: list[str], message: str, tmp_path: Path
) -> None:
    config = apply_overrides(
        digits().with_method(method), [f"method.{setting}" for setting in settings]
    )
    data = config.data.load(config.seed)
    several = SimpleNamespace(num_processes=2)
    with pytest.raises(ValueError, match=message):
        build_trainer(config, data, tmp_path, several)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    "method",
    [
        *(method_config(name).build() for name in METHODS),
        AdvPropLean(threat_model=Linf(0.1), attacked_fraction=0),  # without a branch
    ],
    ids=lambda method: type(method).__name__,
)
def test_defaults_and_methods_without_branches_are_not_refused(method: Method) -> None:
    method.check_distributed()


FAST = Fast(threat_model=Linf(0.1))


@pytest.mark.parametrize(
    ("method", "wanted", "num_processes", "device", "synchronised"),
    [
        (Vanilla(), None, 2, "cuda", True),
        (Vanilla(), None, 1, "cuda", False),
        (Vanilla(), None, 2, "cpu", False),  # torch has it for GPUs only
        (FAST, None, 2, "cuda", False),  # or its shuffling would do nothing
        (Vanilla(), False, 2, "cuda", False),
        (Vanilla(), True, 2, "cuda", True),
        (Vanilla(), True, 1, "cpu", False),
    ],
)
def test_statistics_are_those_of_all_gpus_where_the_method_allows_it(
    method: Method, wanted: bool | None, num_processes: int, device: str, synchronised: bool
) -> None:
    model = with_synchronised_statistics(
        tiny_branched_net(),
        method,
        wanted,
        num_processes=num_processes,
        device=torch.device(device),
    )
    kinds = [isinstance(layer, torch.nn.SyncBatchNorm) for layer in model.modules()]
    assert sum(kinds) == (4 if synchronised else 0)


@pytest.mark.parametrize(
    ("method", "num_processes", "device", "message"),
    [
        (Vanilla(), 2, "cpu", "sync_batchnorm on 2 processes without GPUs: .*none or false"),
        (FAST, 1, "cpu", "sync_batchnorm with Fast, which moves .*none or false"),
        (FAST, 2, "cuda", "sync_batchnorm with Fast"),
    ],
)
def test_statistics_of_all_are_refused_where_they_cannot_be(
    method: Method, num_processes: int, device: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        with_synchronised_statistics(
            tiny_branched_net(),
            method,
            True,
            num_processes=num_processes,
            device=torch.device(device),
        )


def test_torch_refuses_synchronised_layers_on_a_cpu(tmp_path: Path) -> None:
    """Where this fails, torch has learnt it, and `sync_batchnorm` need not be refused there."""
    layer = torch.nn.SyncBatchNorm(3)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1
    )
    try:
        with pytest.raises(ValueError, match="SyncBatchNorm expected input tensor to be on GPU"):
            layer(torch.rand(2, 3, 4, 4))
    finally:
        torch.distributed.destroy_process_group()
