"""What is meant for others tells nothing of the machine that it was made on."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import QUICK, Cli

import advprop
from advprop.config.data import ShardsDataConfig, TimmDataConfig
from advprop.files.json_files import write_json
from advprop.files.parsing import without_paths


def contents(path: Path, content: bytes) -> Iterator[tuple[str, bytes]]:
    """Every file of an export, and what is packed in it."""
    yield path.name, content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for name in archive.namelist():
                yield f"{path.name}: {name}", archive.read(name)


def test_an_export_names_no_folder(
    cli: Cli, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    first, run, export = tmp_path / "first", tmp_path / "a run", tmp_path / "export"
    images = (
        "--set",
        "data.kind=folder",
        "--set",
        f"data.root={photos}",
        "--set",
        "data.channels=1",
    )
    small = (*images, *QUICK, "--set", "data.num_train=none", "--set", "data.image_size=16")
    assert cli("train", "digits", "--out", first, *small).code == 0
    assert cli("export", first, "--out", tmp_path / "weights").code == 0
    weights = ("--set", f"model.checkpoint={tmp_path / 'weights'}")
    trained = cli("train", "digits", "--out", run, *small, *weights)
    assert trained.code == 0, trained.err
    suites = ("--suite", "clean,noise,adversarial,transfer", "--source", first)
    assert cli("evaluate", run, *suites).code == 0
    test = json.loads((run / "test.json").read_text())
    write_json(run / "test.json", test | {"remarks": f"saw {photos}/red, and {photos}"})
    assert str(photos) in (run / "config.json").read_text()

    exported = cli("export", run, "--out", export, "--format", "hub,onnx,torch_export")
    assert exported.code == 0, exported.err
    for path in export.iterdir():
        for name, content in contents(path, path.read_bytes()):
            for folder in (tmp_path, photos, Path(advprop.__file__).parents[1]):
                assert str(folder).encode() not in content, name
    assert "weights of a local file, weights" in (export / "README.md").read_text()
    told = json.loads((export / "config.json").read_text())["advprop"]["test"]
    assert (told["run"], told["remarks"]) == ("a run", "saw red, and photos")

    tested = cli("evaluate", export, "--suite", "clean")
    assert tested.code == 2
    assert "--data clean=DIR" in tested.err
    tested = cli("evaluate", export, "--suite", "clean", "--data", f"clean={photos}")
    assert tested.code == 0, tested.err


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("/home/anna/photos", "photos"),
        ("/home/anna/my photos/", "my photos"),
        ("reads /home/anna/a.png: damaged", "reads a.png: damaged"),
        ("https://example.org/some/page", "https://example.org/some/page"),
        ("a/b/c and 4/255, and/or 1/2/3", "a/b/c and 4/255, and/or 1/2/3"),
        ("/", "/"),
        ({"a": ["/x/y", 1, None, True]}, {"a": ["y", 1, None, True]}),
    ],
    ids=["path", "blanks", "sentence", "address", "no_path", "slash", "tree"],
)
def test_paths_become_their_last_names(told: object, shown: object) -> None:
    assert without_paths(told) == shown


def test_each_kind_of_data_leaves_its_places_out(tmp_path: Path) -> None:
    shards = ShardsDataConfig(train=f"{tmp_path}/a-{{0..9}}.tar", classes=tmp_path / "classes.json")
    assert shards.without_places() == ShardsDataConfig()
    local = TimmDataConfig(name=f"hfds/{tmp_path}", root=tmp_path)
    assert local.without_places() == TimmDataConfig()
    named = TimmDataConfig(name="torch/cifar10", root=tmp_path)
    assert named.without_places() == TimmDataConfig(name="torch/cifar10")
