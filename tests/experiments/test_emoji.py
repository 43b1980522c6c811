"""The emoji set: its classes, splits and refusals, from icons that are made here."""

from __future__ import annotations

import importlib
import io
import json
import sys
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from advprop.data.sets.folders import load_folder, load_test_folder
from advprop.data.view import View

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SUBCATEGORIES = ("face-smiling", "animal-bird", "plant-flower")
LABELS = {"animals", "faces", "plants"}
EACH = 12  # emoji in a class


@pytest.fixture(scope="module")
def emoji() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXPERIMENTS))
    yield importlib.import_module("emoji")
    sys.path.remove(str(EXPERIMENTS))


def entry(number: int, codes: str, subcategory: str, name: str = "") -> dict[str, Any]:
    name = name or f"icon-{number}"
    return {
        "unified": codes,
        "subcategory": subcategory,
        "short_name": name,
        "sort_order": number,
    }


def entries() -> list[dict[str, Any]]:
    return [
        entry(number, f"{0x10000 + number:X}", subcategory)
        for number, subcategory in enumerate(SUBCATEGORIES * EACH)
    ]


def icons(shift: int) -> dict[str, Any]:
    """Bars of heights of their own, so that none looks like another; drawn to `shift` by artist."""
    drawn = {}
    for number in range(len(SUBCATEGORIES) * EACH):
        bits = [(number * 2654435761 >> place) & 1 for place in range(3, 19)]
        bars = "".join(
            f'<rect x="{4 * (place % 4) + shift}" y="{4 * (place // 4)}" width="3" height="4" '
            f'fill="hsl({(number * 37 + 90 * place) % 360},80%,50%)"/>'
            for place, bit in enumerate(bits)
            if bit
        )
        drawn[f"icon-{number}"] = {"body": bars}
    return {"icons": drawn, "width": 16, "height": 16}


def packages() -> list[Any]:
    read = importlib.import_module("npm_packages")
    chars = {f"{0x10000 + n:x}": f"icon-{n}" for n in range(len(SUBCATEGORIES) * EACH)}
    return [
        read.Package(
            name=f"@iconify-json/{artist}",
            version="1.0.0",
            license="MIT",
            sha256="0",
            # the second one states no code points: they are found by the names
            files={"icons.json": icons(shift), "chars.json": {} if artist == "noto-v1" else chars},
        )
        for shift, artist in enumerate(("noto", "noto-v1", "openmoji"))
    ]


def write(emoji: ModuleType, folder: Path) -> dict[str, Any]:
    return emoji.write_set(folder, emoji.classify(entries()), packages(), 16)


def test_every_emoji_is_in_one_split_and_unseen_artists_in_shift(
    emoji: ModuleType, tmp_path: Path
) -> None:
    told = write(emoji, tmp_path / "set")
    splits: dict[str, set[str]] = defaultdict(set)
    artists: dict[str, set[str]] = defaultdict(set)
    for path in (tmp_path / "set").rglob("*.png"):
        identity, artist = path.stem.split("_")
        splits[identity].add(path.parts[-3])
        artists[path.parts[-3]].add(artist)
    assert told["copies_left_out"] == []
    assert len(splits) == len(SUBCATEGORIES) * EACH
    assert all(len(found - {"shift"}) == 1 for found in splits.values())
    assert all(found == {"test", "shift"} for found in splits.values() if "shift" in found)
    assert artists.pop("shift") == {"openmoji"}
    assert all(found == {"noto", "noto-v1"} for found in artists.values())


def test_the_set_loads_and_about_counts_it(emoji: ModuleType, tmp_path: Path) -> None:
    told = write(emoji, tmp_path / "set")
    data = load_folder(tmp_path / "set", View(image_size=16))
    assert set(data.class_names) == LABELS
    shift = load_test_folder(
        tmp_path / "set/shift", class_names=data.class_names, preprocessing=data.preprocessing
    )
    assert data.test is not None
    sizes = [len(split.labels) for split in (data.train, data.validation, data.test, shift)]
    assert sizes == [told["images"][name] for name in ("train", "val", "test", "shift")]
    assert told == json.loads((tmp_path / "set/about.json").read_text())
    for path in (tmp_path / "set").rglob("*.png"):
        with Image.open(path) as image:
            assert (image.mode, image.size) == ("RGB", (16, 16))


def test_the_same_packages_give_the_same_bytes(emoji: ModuleType, tmp_path: Path) -> None:
    def contents(folder: Path) -> dict[str, bytes]:
        files = [path for path in folder.rglob("*") if path.is_file()]
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    write(emoji, tmp_path / "one")
    write(emoji, tmp_path / "two")
    first = contents(tmp_path / "one")
    assert first == contents(tmp_path / "two")
    write(emoji, tmp_path / "one")  # over its own
    assert first == contents(tmp_path / "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_copies_of_held_out_drawings_leave_training(emoji: ModuleType) -> None:
    def drawing(split: str, number: int, body: str) -> Any:
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{body}</svg>'
        return emoji.Drawing(
            split=split, label="faces", identity=f"{number}", artist="noto", svg=svg
        )

    left = '<path d="M1 1 H9 V9 Z" fill="red"/>'
    right = '<path d="M15 1 H7 V9 Z" fill="red"/>'  # its mirror image
    other = '<rect x="2" y="9" width="11" height="4" fill="blue"/>'
    drawings = [drawing("train", 1, left), drawing("train", 2, other), drawing("test", 3, right)]
    kept, copies = emoji.without_copies(drawings)
    assert copies == ["train/faces/1_noto.png"]
    assert kept == drawings[1:]


def test_variants_of_an_emoji_are_one(emoji: ModuleType) -> None:
    given = [
        entry(1, "1F9D1-200D-1F373", "person-role", "cook"),
        entry(2, "1F468-200D-1F373", "person-role", "male-cook"),
        entry(3, "1F3C4", "person-sport", "surfer"),
        entry(4, "1F3C4-200D-2640-FE0F", "person-sport", "woman-surfing"),
        entry(5, "2197-FE0F", "arrow", "arrow_upper_right"),
        entry(6, "2196-FE0F", "arrow", "arrow_upper_left"),  # the other direction
        entry(7, "1F9B4", "body-parts", "bone"),  # nothing that people would agree on
        entry(8, "1F63A", "cat-face", "smiley_cat"),
    ]
    found = {one.identity: (one.label, one.codes) for one in emoji.classify(given)}
    assert found == {
        "1F9D1-1F373": ("people", ("1F9D1-200D-1F373", "1F468-200D-1F373")),
        "1F3C4": ("people", ("1F3C4", "1F3C4-200D-2640")),
        "2197": ("signs", ("2197",)),
    }


def test_the_split_of_an_emoji_does_not_depend_on_the_order(emoji: ModuleType) -> None:
    listed = emoji.classify(entries())
    assert emoji.split_of(listed) == emoji.split_of(listed[::-1])
    counts = defaultdict(int)
    for split in emoji.split_of(listed).values():
        counts[split] += 1
    assert counts == {"train": 21, "val": 6, "test": 9}


def test_another_folder_is_not_overwritten(
    emoji: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "about.json").write_text('{"made_by": "someone"}')
    assert emoji.main([str(tmp_path), "--packages", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert "did not write" in message
    assert message.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["about.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--size", "8"], "between 16 and 512"), ([], "no npm to fetch them")],
)
def test_mistakes_are_one_message_and_code_2(
    emoji: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("PATH", "")
    packages = str(tmp_path / "npm")
    assert emoji.main([str(tmp_path / "set"), "--packages", packages, *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_packages_are_read_as_npm_packs_them(emoji: ModuleType, tmp_path: Path) -> None:
    read = importlib.import_module("npm_packages")
    path = tmp_path / "iconify-json-noto-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as archive:
        for name, value in {"package.json": {"license": "MIT"}, "icons.json": icons(0)}.items():
            content = json.dumps(value).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    wanted = importlib.import_module("emoji_packages").wanted
    package = read.read_package(tmp_path, "@iconify-json/noto", "1.0.0", wanted)
    assert package.about()["license"] == "MIT"
    assert len(package.files["icons.json"]["icons"]) == len(SUBCATEGORIES) * EACH
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="is not whole"):
        read.read_package(tmp_path, "@iconify-json/noto", "1.0.0", wanted)
