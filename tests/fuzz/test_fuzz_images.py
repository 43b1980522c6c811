"""Damaged images and shards: named, never a traceback, and the whole ones are read."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Cli, contents
from damage import Change, assert_named, attempt, cases, changes
from PIL import Image

from advprop.data.batches.loaders import test_batches as batches_of
from advprop.data.sets.folders import load_folder
from advprop.data.shards.loading import load_shards
from advprop.data.splits import ImageData
from advprop.data.view import View

BYTES = changes(cuts=12, flips=24, replacements=12)
FORMATS = ("png", "jpeg", "gif", "bmp", "tiff", "webp")


def encoded(number: int, kind: str = "png", size: int = 12) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def bomb(content: bytes) -> bytes:
    """A PNG whose header claims 65,535 pixels square."""
    side = (65_535).to_bytes(4, "big")
    header = b"IHDR" + side + side + b"\x08\x02\0\0\0"
    checked = header + zlib.crc32(header).to_bytes(4, "big")
    return content[:12] + checked + content[33:]


IMAGES: dict[str, Change] = {
    **BYTES,
    "bomb": bomb,
    "jpeg": lambda content: encoded(0, "jpeg"),
    "gif": lambda content: encoded(0, "gif"),
    "two images": lambda content: content + encoded(1),
    "empty archive": lambda content: bytes(10_240),
    "script": lambda content: b"#!/bin/sh\nmkdir owned\n",
    "postscript": lambda content: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n",
    "vector": lambda content: b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of six images each."""
    root = tmp_path / "photos"
    for label, name in enumerate(("blue", "red")):
        (root / name).mkdir(parents=True)
        for number in range(6):
            (root / name / f"{number}.png").write_bytes(encoded(10 * label + number))
    return root


def read_all(data: ImageData) -> list[torch.Tensor]:
    splits = [data.train, data.validation, data.test]
    return [
        batch.images
        for split in splits
        if split is not None
        for batch in batches_of(split, batch_size=4)
    ]


@pytest.mark.parametrize("change", cases(IMAGES, quick=30))
def test_a_folder_with_a_damaged_image(change: str, photos: Path) -> None:
    path = photos / "red" / "3.png"
    path.write_bytes(IMAGES[change](path.read_bytes()))
    before = contents(photos)
    outcome = attempt(lambda: read_all(load_folder(photos, View(image_size=8))))
    assert contents(photos) == before
    if outcome.message is None:
        assert sum(len(images) for images in outcome.result) == 12
        assert all(images.isfinite().all() for images in outcome.result)
    else:
        assert_named(outcome.message, path)
        assert "3.png" in outcome.message


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("change", cases(BYTES, quick=9))
def test_predict_names_what_it_cannot_read(
    change: str, kind: str, whole_export: Path, tmp_path: Path
) -> None:
    from advprop.exports.prediction import predict

    path = tmp_path / f"image.{kind}"
    path.write_bytes(BYTES[change](encoded(0, kind)))
    model = exported_model(whole_export)
    outcome = attempt(
        lambda: predict(
            model.model, [path], class_names=model.class_names, preprocessing=model.preprocessing
        )
    )
    if outcome.message is None:
        assert len(outcome.result[0]) == 3
    else:
        assert_named(outcome.message, path)


LOADED: dict[Path, Any] = {}


def exported_model(folder: Path) -> Any:
    from advprop.exports.export import load_export

    if folder not in LOADED:
        LOADED[folder] = load_export(folder)
    return LOADED[folder]


def test_the_command_line_goes_on_after_bad_images(
    whole_export: Path, photos: Path, cli: Cli
) -> None:
    (photos / "red" / "0.png").write_bytes(b"")
    (photos / "red" / "1.png").write_bytes(bomb(encoded(1)))
    (photos / "red" / "2.png").write_text("no picture")
    (photos / "red" / "6.png").mkdir()
    ended = cli("predict", whole_export, photos)
    assert ended.code == 2, ended
    assert ended.err.count("warning: cannot read the image") == 3
    assert "3 of 12 images could not be read" in ended.err
    assert len(ended.out.splitlines()) == 9


@pytest.mark.parametrize("change", ["empty", "text", "bomb", "script", "cut 3 of 12"])
def test_a_run_is_not_evaluated_on_damaged_images(
    change: str, whole_run: Path, photos: Path, cli: Cli
) -> None:
    for name, digit in (("blue", "0"), ("red", "1")):
        (photos / name).rename(photos / digit)
    path = photos / "1" / "3.png"
    path.write_bytes(IMAGES[change](path.read_bytes()))
    before = contents(whole_run)
    ended = cli("evaluate", whole_run, "--suite", "clean", "--data", f"clean={photos}")
    assert ended.code == 2, ended
    assert "3.png" in ended.err
    assert "Traceback" not in ended.err
    assert contents(whole_run) == before


PLACES: dict[str, Callable[[Path], object]] = {
    "a folder with an image's name": lambda root: (root / "red" / "x.png").mkdir(),
    "a folder of that name with an image": lambda root: [
        (root / "red" / "x.png").mkdir(),
        (root / "red" / "x.png" / "y.png").write_bytes(encoded(5)),
    ],
    "a link to nowhere": lambda root: (root / "red" / "x.png").symlink_to(root / "none"),
    "a link to itself": lambda root: (root / "red" / "x.png").symlink_to(root / "red" / "x.png"),
    "a loop of folders": lambda root: (root / "red" / "loop").symlink_to(root),
    "text without an ending": lambda root: (root / "red" / "notes").write_text("x"),
    "a name that is no text": lambda root: (root / "red" / "\udcff.png").write_bytes(encoded(7)),
    "a class that is a file": lambda root: (root / "green").write_text("x"),
    "a class that is an image": lambda root: (root / "green.png").write_bytes(encoded(8)),
}


@pytest.mark.parametrize("change", PLACES)
def test_strange_folders_are_read_or_refused(change: str, photos: Path) -> None:
    PLACES[change](photos)
    outcome = attempt(lambda: read_all(load_folder(photos, View(image_size=8))))
    if outcome.message is None:
        assert sum(len(images) for images in outcome.result) >= 12
    else:
        assert str(photos) in outcome.message


def tar_of(count: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for number in range(count):
            for ending, content in (("png", encoded(number)), ("cls", str(number % 2).encode())):
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


SHARD_BYTES = changes(cuts=24, flips=40, replacements=20)


@pytest.mark.parametrize("change", cases(SHARD_BYTES, quick=40))
@pytest.mark.parametrize("tolerance", [0.0, 0.2])
def test_a_damaged_shard_is_named_or_its_whole_samples_are_used(
    tolerance: float, change: str, tmp_path: Path
) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    (folder / "train-0.tar").write_bytes(tar_of(16))
    path = folder / "train-1.tar"
    whole = tar_of(32)
    path.write_bytes(SHARD_BYTES[change](whole.replace(b"000.", b"900.")))
    before = contents(folder)
    outcome = attempt(
        lambda: read_all(
            load_shards(View(image_size=8, max_unreadable=tolerance), train=str(folder))
        )
    )
    after = contents(folder)
    after.pop(str(folder / ".advprop-shards.npz"), None)  # a copy of the headers
    assert after == before
    if outcome.message is None:
        assert sum(len(images) for images in outcome.result) >= 16
    else:
        assert_named(outcome.message, path)
