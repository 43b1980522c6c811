"""Two processes under torchrun: one run, one log, a restart that changes no bit, shards shared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from launching import launched
from PIL import Image
from run_folders import log_of, weights_of
from seen_batches import images_seen

from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.data.shards.writing import write_shards
from advprop.recipes.builtin import digits
from advprop.runs import train

KILLED = str(Path(__file__).with_name("killed_process.py"))
LAYER_NORM = [
    "model.name=vit_tiny_patch16_224",
    "model.mean=[0.3]",
    "model.std=[0.4]",
    'model.options={"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}',
]


def configured(*settings: str) -> RunConfig:
    base = ["training.num_epochs=2", "data.num_train=80", "training.batch_size=20"]
    return apply_overrides(digits(), [*base, *settings])


def command(config: RunConfig, folder: Path, *options: str) -> list[str]:
    settings = folder.parent / f"{folder.name}.json"
    settings.write_text(config.model_dump_json())
    return ["-m", "advprop", "train", str(settings), "--out", str(folder), *options]


def test_two_processes_equal_one_where_no_layer_looks_at_the_batch(tmp_path: Path) -> None:
    """And everything is written and said once."""
    config = configured(*LAYER_NORM, "training.ema_decay=0.9")
    ended = launched(command(config, tmp_path / "two"))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("finished; validation accuracy") == 1
    assert "SIGABRT" not in ended.stderr
    assert [line.split()[1] for line in ended.stderr.splitlines() if line[:5] == "epoch"] == [
        "1",
        "2",
    ]
    train(config, tmp_path / "one", quiet=True)
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name, tensor in one.items():
        # the same sums in another order; an attack's sign flips where a gradient is next to zero
        torch.testing.assert_close(two[name], tensor, rtol=1e-2, atol=1e-3)
    logs = [log_of(tmp_path / run) for run in ("one", "two")]
    assert [entry["step"] for entry in logs[1]] == [4, 8]
    for a, b in zip(*logs, strict=True):
        assert b["validation_accuracy"] == pytest.approx(a["validation_accuracy"], abs=0.02)


@pytest.mark.full
def test_statistics_of_each_process_differ_from_those_of_one_by_a_little(tmp_path: Path) -> None:
    """Batch normalisation over 10 images in each of two processes, against 20 in one.

    The difference is that of the method: another, smaller batch for the statistics. After two
    epochs the running means lie within a fifth of a standard deviation of each other.
    """
    config = configured("model.options.width=8", "training.learning_rate=0.02")
    assert launched(command(config, tmp_path / "two")).returncode == 0
    train(config, tmp_path / "one", quiet=True)
    one, two = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name in one:
        if name.endswith("running_mean"):
            deviation = one[name.replace("running_mean", "running_var")].sqrt()
            assert ((one[name] - two[name]).abs() / deviation).mean() < 0.2, name


def test_a_killed_process_is_started_anew_and_changes_no_bit(tmp_path: Path) -> None:
    config = configured(
        "training.num_epochs=5", "training.checkpoint_every_steps=2", "model.options.drop_rate=0.2"
    )
    assert launched(command(config, tmp_path / "whole")).returncode == 0
    killed = [KILLED, "7", *command(config, tmp_path / "cut", "--resume")[2:]]
    ended = launched(killed, max_restarts=1)
    assert ended.returncode == 0, ended.stderr
    assert "another process of this run has ended" in ended.stderr
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[name], cut[name]) for name in whole)
    logs = [log_of(tmp_path / run) for run in ("whole", "cut")]
    timings = ("seconds", "images_per_second")
    assert [{k: v for k, v in entry.items() if k not in timings} for entry in logs[0]] == [
        {k: v for k, v in entry.items() if k not in timings} for entry in logs[1]
    ]


def test_a_run_resumed_on_another_number_of_processes_sees_the_same_images(tmp_path: Path) -> None:
    """In the same order, mixed and repeated alike: two processes into an epoch, then one."""
    config = configured(
        "training.batch_size=16", "data.sampling.repeats=2", "data.mixing.mixup=0.8"
    )
    (tmp_path / "config.json").write_text(config.model_dump_json())
    script = Path(__file__).with_name("seen_batches.py")
    places = [str(tmp_path / name) for name in ("config.json", "cut", ".")]
    ended = launched([str(script), *places, "2"])
    assert ended.returncode == 0, ended.stderr
    shares = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    begun = [(*one[:2], one[2] + other[2]) for one, other in zip(*shares, strict=True)]
    rest = images_seen(config, tmp_path / "cut")
    whole = images_seen(config, tmp_path / "whole")
    assert 2 <= len(begun) < 5  # the first epoch was not over
    assert begun + rest == whole
    assert [step for _, step, _ in whole] == list(range(10))
    assert {copy for _, _, images in whole for _, copy, *_ in images} == {0, 1}


@pytest.mark.full
def test_a_refusal_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "note.txt").write_text("mine")
    ended = launched(command(configured(), tmp_path / "taken"))
    assert ended.returncode != 0
    assert ended.stderr.count("not empty, and not a run") == 1
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["note.txt"]


@pytest.mark.full
def test_shards_are_streamed_once_an_epoch_by_two_processes(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for name in ("one", "two", "three"):
        (tmp_path / "photos" / "train" / name).mkdir(parents=True)
        for number in range(16):
            pixels = generator.integers(0, 255, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / "train" / name / f"{number}.png")
    write_shards(tmp_path / "photos", tmp_path / "shards", images_per_shard=5)
    script = tmp_path / "stream.py"
    script.write_text(_STREAM.format(shards=tmp_path / "shards", out=tmp_path))
    ended = launched([str(script)])
    assert ended.returncode == 0, ended.stderr
    seen = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    for epoch in range(2):
        first, second = seen[0][epoch], seen[1][epoch]
        assert len(first) == len(second)
        together = first + second
        assert len(set(together)) == len(together) == seen[0][2]
    assert seen[0][0] != seen[0][1]  # another order in the next epoch


_STREAM = """
import json, os
from advprop.data.batches.loaders import train_batches
from advprop.data.shards.loading import load_shards
from advprop.data.view import View

if __name__ == "__main__":
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    split = load_shards(View(image_size=12), train="{shards}").train
    # a batch size that divides the images, so that an epoch has no remainder
    size = max(n for n in range(2, len(split) + 1, 2) if len(split) % n == 0 and n < len(split)) \\
        if len(split) % 2 == 0 else len(split) - 1
    seen = []
    for epoch in range(2):
        batches = train_batches(
            split, batch_size=size, seed=0, epoch=epoch, num_workers=1, rank=rank, world_size=world
        )
        seen.append([index for batch in batches for index in batch.indices.tolist()])
    seen.append(len(split) // size * size)
    with open(f"{out}/rank{{rank}}.json", "w") as file:
        json.dump(seen, file)
"""
