"""A model that cannot take the run's images, or does not fit into memory, is one message."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import Cli

import advprop.runs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.name=inception_v3"], "inception_v3 cannot take images of 3 x 32 x 32"),
        (["model.name=levit_128s", "data.image_size=40"], "levit_128s cannot take images of"),
        (["model.name=resnet10t", "model.options.features_only=true"], "gives list"),
        (
            ["model.name=resnet10t", 'model.options.global_pool=""'],
            "change data.image_size, model.options or",
        ),
    ],
)
def test_the_corrected_command_can_use_the_folder(
    settings: list[str], message: str, cli: Cli, photos: Path, tmp_path: Path
) -> None:
    given = [f"data.root={photos}", "data.image_size=32", "training.batch_size=8", *settings]
    flags = [flag for setting in given for flag in ("--set", setting)]
    ended = cli("train", "from_scratch", "--out", tmp_path / "run", *flags, "--quiet")
    assert ended.code == 2, ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_too_little_memory_is_a_message_with_remedies(
    error: Exception, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(advprop.runs, "train", full)
    ended = cli("train", "digits", "--out", tmp_path / "run", "--quiet")
    assert ended.code == 2, ended.err
    assert ended.err.startswith("advprop: out of memory (")
    assert ended.err.count("\n") == 1
    assert "training.batch_size" in ended.err
