from __future__ import annotations

import gc
import json
import re
import tarfile

import pytest
import typer
from typer.testing import CliRunner

from advprop.cli import shards as command
from advprop.data.shards import writing as shard_writing
from advprop.data.shards.loading import load_shards
from advprop.data.shards.writing import Written, write_shards
from advprop.data.view import View

LAID_OUT = {"train/a": 13, "train/b": 10, "val/a": 3, "val/b": 2}


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_come_out_as_they_went_in(write_images, tmp_path):
    root = write_images(LAID_OUT)
    (root / "train" / "a" / "000.png").write_bytes(b"\xff\xd8\xff" + bytes(5))
    (root / "train" / "a" / "000.png").write_bytes((root / "train" / "a" / "001.png").read_bytes())
    written = write_shards(root, tmp_path / "out", images_per_shard=5)
    assert written == {"train": Written(23, 5), "validation": Written(5, 1)}
    assert sorted(contents(tmp_path / "out")) == [
        "classes.json", *(f"train-00000{number}.tar" for number in range(5)),
        "validation-000000.tar",
    ]  # fmt: skip
    assert json.loads((tmp_path / "out" / "classes.json").read_text()) == ["a", "b"]
    for path in (tmp_path / "out").glob("*.tar"):
        with tarfile.open(path) as tar:
            tar.extractall(tmp_path / "again", filter="data")
    files = list(root.rglob("*.png"))
    assert len(files) == len([*(tmp_path / "again").rglob("*.png")]) == 28
    for path in files:
        copy = tmp_path / "again" / path.relative_to(root)
        assert copy.read_bytes() == path.read_bytes()
        assert copy.with_suffix(".cls").read_text() == str("ab".index(path.parent.name))


def test_the_same_folder_gives_the_same_bytes_wherever_it_is(write_images, tmp_path, monkeypatch):
    root = write_images(LAID_OUT)
    write_shards(root, tmp_path / "one", images_per_shard=5)
    for path in root.rglob("*"):
        path.touch()
    root.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path / "moved")
    write_shards(".", "../two", images_per_shard=5)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_shards_hold_mixed_classes(write_images, tmp_path):
    write_shards(write_images({"a": 60, "b": 60}), tmp_path / "out", images_per_shard=20)
    split = load_shards(View(image_size=8), train=str(tmp_path / "out")).train
    for shard in range(4):
        assert min(split.labels[split.shard_of == shard].bincount(minlength=2)) >= 3


def test_odd_names_get_keys_of_their_own(write_images, tmp_path):
    root = write_images({"a": 9, "b.c": 9, "\u00e4\U0001f600" + "x" * 120: 9})
    for number, name in enumerate(("x.y.png", "x_y.png", "x.JPG", "x.png", "x.jpg", "__x__.png")):
        (root / "a" / f"00{number}.png").rename(root / "a" / name)
    write_shards(root, tmp_path / "out")
    data = load_shards(View(image_size=8), train=str(tmp_path / "out"))
    keys = [*data.train.keys, *data.validation.keys, *data.test.keys]
    assert len(set(keys)) == 27
    assert {b"a/x", b"a/x_", b"a/x__", b"a/x_y", b"a/x_y_", b"b.c/000"} <= set(keys)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it closes late
def test_webdataset_reads_the_shards(write_images, tmp_path):
    import webdataset

    root = write_images(LAID_OUT)
    write_shards(root, tmp_path / "out", images_per_shard=5)
    urls = str(tmp_path / "out" / "train-{000000..000004}.tar")
    read = list(webdataset.WebDataset(urls, shardshuffle=False).decode())
    assert len({sample["__key__"] for sample in read}) == len(read) == 23
    ours = load_shards(View(image_size=8), train=urls, validation=str(tmp_path / "out")).train
    assert [key.decode() for key in ours.keys] == [sample["__key__"] for sample in read]
    assert ours.labels.tolist() == [sample["cls"] for sample in read]
    for sample in webdataset.WebDataset(urls, shardshuffle=False):
        assert sample["png"] == (root / f"{sample['__key__']}.png").read_bytes()
    gc.collect()


def test_a_folder_that_is_not_empty_is_refused(write_images, tmp_path):
    root = write_images(LAID_OUT)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep")
    with pytest.raises(
        ValueError, match="out: not empty, and nothing is overwritten; name another"
    ):
        write_shards(root, tmp_path / "out")
    assert contents(tmp_path / "out") == {"mine.txt": b"keep"}
    with pytest.raises(ValueError, match="images_per_shard=0: must be at least 1"):
        write_shards(root, tmp_path / "new", images_per_shard=0)
    (root / "train" / "a" / "003.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 28 images cannot be read:\n.*003\.png"):
        write_shards(root, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, OSError])
def test_an_interrupted_call_leaves_nothing(write_images, tmp_path, monkeypatch, kind):
    add, calls = shard_writing._add, []

    def failing(*arguments):
        calls.append(arguments)
        if len(calls) == 30:
            raise kind
        add(*arguments)

    monkeypatch.setattr(shard_writing, "_add", failing)
    root = write_images(LAID_OUT)
    with pytest.raises(kind):
        write_shards(root, tmp_path / "out", images_per_shard=5)
    assert list(tmp_path.iterdir()) == [root]


def test_the_command_says_what_it_wrote_and_what_comes_next(write_images, tmp_path):
    app = typer.Typer()
    app.command()(command.main)
    out = tmp_path / "my shards"
    arguments = [str(write_images(LAID_OUT)), "--out", str(out), "--images-per-shard", "5"]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 0
    assert "train 23 images in 5 shards; validation 5 images in 1 shard" in ended.stdout
    setting = re.search(r"--set data\.kind=shards --set 'data\.train=(.*)'$", ended.stdout.strip())
    assert setting[1] == str(out)
    assert len(load_shards(View(image_size=8), train=setting[1]).validation) == 5
