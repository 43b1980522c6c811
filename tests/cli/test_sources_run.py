"""Images from shards and from Hugging Face, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli

SMALL = [
    "--set=model.mean=[0.5,0.5,0.5]",
    "--set=model.std=[0.5,0.5,0.5]",
    "--set=data.image_size=16",
    "--set=data.num_train=none",
    "--set=training.num_epochs=1",
    "--set=training.batch_size=8",
    "--quiet",
]


def test_a_folder_becomes_shards_and_shards_a_model(cli: Cli, photos: Path, tmp_path: Path) -> None:
    ended = cli("shards", photos, "--out", tmp_path / "shards", "--images-per-shard", "8")
    assert ended.code == 0, ended.err
    source = ["--set=data.kind=shards", f"--set=data.train={tmp_path / 'shards'}"]
    mixing = ["--set=data.mixing.mixup=0.2", "--set=data.augmentation.random_erasing=0.5"]
    out = tmp_path / "run"
    ended = cli("train", "digits", *source, *mixing, *SMALL, "--out", out)
    assert ended.code == 0, ended.err
    config = json.loads((out / "config.json").read_text())
    assert config["data"]["kind"] == "shards"
    assert "root" not in config["data"]
    evaluated = cli("evaluate", out, "--suite", "clean")
    assert evaluated.code == 0, evaluated.err
    assert "clean:" in evaluated.out


def test_a_hugging_face_data_set_becomes_a_model(cli: Cli, photos: Path, tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["blue", "red"])}
    )
    files = sorted(photos.rglob("*.png"))
    rows = {
        "image": [str(file) for file in files],
        "label": [file.parent.name for file in files],
    }
    table = datasets.Dataset.from_dict(rows, features=features)
    (tmp_path / "set").mkdir()
    table.to_parquet(tmp_path / "set" / "train.parquet")
    source = ["--set=data.kind=timm", f"--set=data.name=hfds/{tmp_path / 'set'}"]
    cached = ["--set=data.test=none", f"--set=data.root={tmp_path / 'cache'}"]
    ended = cli("train", "digits", *source, *cached, *SMALL, "--out", tmp_path / "run")
    assert ended.code == 0, ended.err
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert facts["class_names"] == ["blue", "red"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.kind=tape"], 'data.kind "tape" unknown: choose from builtin, folder, timm, shards'),
        (["data.kind=shards"], "no shards named: --set data.train=DIR"),
        (["data.kind=timm"], "no data set named: --set data.name="),
        (["data.kind=shards", "data.root=x"], '"data.root" is no setting'),
        (["data.kind=shards", "data.train=http://host/a.tar"], "copy"),
        (["data.mixing.mixup=-1"], "mixup"),
        (["data.sampling.repeats=0"], "repeats"),
        (["training.optimizer_options.colour=1"], "cannot be built"),
        (["model.checkpoint=nowhere.pt"], "there is no such checkpoint"),
        (["training.schedule=staircase", "training.decay_rate=2"], "decay_rate 2"),
    ],
)
def test_wrong_settings_of_data_and_engine(
    settings: list[str], message: str, cli: Cli, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = cli("train", "digits", *(f"--set={setting}" for setting in settings), "--out", out)
    assert ended.code == 2
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert not out.exists()
