"""The icon set: its classes, families, splits and copies, from icons that are made here."""

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

from advprop.data.sets.folders import load_folder, load_test_folder
from advprop.data.view import View

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
NOUNS = ("cloud", "heart", "star")
AUTHORS = {f"set{number}": f"Designer {number}" for number in range(40)}
MOTIFS = 4  # icons of a set in a class


@pytest.fixture(scope="module")
def icons() -> Iterator[ModuleType]:
    sys.path.insert(0, str(EXPERIMENTS))
    yield importlib.import_module("icons")
    sys.path.remove(str(EXPERIMENTS))


def bars(number: int) -> str:
    """A pattern that only `number` has."""
    bits = [(number * 2654435761 >> place) & 1 for place in range(3, 28)]
    return "".join(
        f'<rect x="{5 * (place % 5)}" y="{5 * (place // 5)}" width="4" height="4" '
        f'fill="{("currentColor", "red")[place % 2]}"/>'
        for place, bit in enumerate(bits)
        if bit
    )


def icon_set(prefix: str, author: str, drawn: dict[str, str], category: str = "") -> dict[str, Any]:
    info = {
        "name": prefix.title(),
        "author": {"name": author},
        "license": {"title": "MIT", "spdx": "MIT"},
        "category": category,
    }
    icons = {name: {"body": body} for name, body in drawn.items()}
    return {"prefix": prefix, "info": info, "icons": icons, "width": 24, "height": 24}


def sets() -> dict[str, Any]:
    names = [f"{noun}-{motif}" for noun in NOUNS for motif in "abcd"[:MOTIFS]]
    return {
        prefix: icon_set(
            prefix,
            author,
            {name: bars(1 + place + len(names) * number) for place, name in enumerate(names)},
        )
        for number, (prefix, author) in enumerate(AUTHORS.items())
    }


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("calendar", "calendar"),
        ("calendar-plus-outline", "calendar"),
        ("mail-open", "envelope"),
        ("email-envelope", "envelope"),  # the second noun is of the same class
        ("calendar-heart", None),
        ("bell-off", None),
        ("bell-slash-fill", None),
        ("map-pin", None),  # shows the pin
        ("outline-bell", None),
        ("bells", None),
    ],
)
def test_a_class_is_the_noun_that_begins_a_name(
    icons: ModuleType, name: str, label: str | None
) -> None:
    assert importlib.import_module("icon_classes").label_of(name) == label


def test_held_out_designers_are_not_in_training(icons: ModuleType, tmp_path: Path) -> None:
    told = icons.write_set(tmp_path / "set", sets(), 16)
    families: dict[str, set[str]] = defaultdict(set)
    for path in (tmp_path / "set").rglob("*.png"):
        families[path.parts[-3]].add(path.stem.split("_")[0])
    assert set(families) == {"train", "val", "test", "test_seen"}
    assert not families["train"] & (families["val"] | families["test"])
    assert not families["val"] & families["test"]
    assert families["test_seen"] <= families["train"]
    assert families["train"] | families["val"] | families["test"] == set(AUTHORS)
    assert sum(told["images"].values()) + sum(told["copies_left_out"].values()) == len(
        AUTHORS
    ) * MOTIFS * len(NOUNS)
    assert told["images"]["train"] > told["images"]["test"] > 0


def test_the_set_loads_with_its_licences_beside_it(icons: ModuleType, tmp_path: Path) -> None:
    told = icons.write_set(tmp_path / "set", sets(), 16)
    data = load_folder(tmp_path / "set", View(image_size=16))
    assert data.class_names == NOUNS
    seen = load_test_folder(
        tmp_path / "set/test_seen", class_names=NOUNS, preprocessing=data.preprocessing
    )
    assert data.test is not None
    sizes = [len(split.labels) for split in (data.train, data.validation, data.test, seen)]
    assert sizes == [told["images"][name] for name in ("train", "val", "test", "test_seen")]
    assert told == json.loads((tmp_path / "set/about.json").read_text())
    assert [one["set"] for one in told["sets"]] == sorted(AUTHORS)
    assert {one["license"]["spdx"] for one in told["sets"]} == {"MIT"}
    assert sum(sum(one["images"].values()) for one in told["sets"]) == sum(sizes)


def test_the_limit_changes_no_split(icons: ModuleType, tmp_path: Path) -> None:
    def paths(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*.png")}

    icons.write_set(tmp_path / "all", sets(), 16)
    told = icons.write_set(tmp_path / "few", sets(), 16, limit=2)
    assert paths(tmp_path / "few") < paths(tmp_path / "all")
    assert told["images"] == dict.fromkeys(("test", "test_seen", "train", "val"), 2 * len(NOUNS))
    again = icons.write_set(tmp_path / "again", sets(), 16, limit=2)
    assert again == told


def test_sets_of_one_family_share_a_split(icons: ModuleType) -> None:
    given = sets() | {
        prefix: icon_set(
            prefix, author, {"star": bars(5000 + number), "cloud": bars(6000 + number)}
        )
        for number, (prefix, author) in enumerate(
            [("feather", "Cole Bemis"), ("lucide", "Lucide Contributors"), ("fe", "Megumi Hano")]
        )
    }
    placed = [one for one in icons.in_splits(icons.list_icons(given)) if one.family == "Feather"]
    assert {one.prefix for one in placed} == {"feather", "lucide", "fe"}
    splits = {one.split for one in placed}
    assert len(splits - {"test_seen"}) <= 1


def test_a_large_family_is_trained_on_and_capped_in_each_class(icons: ModuleType) -> None:
    many = {f"star-{number}": bars(7000 + number) for number in range(200)}
    listed = icons.list_icons(sets() | {"huge": icon_set("huge", "Huge", many)})
    placed = [one for one in icons.in_splits(listed) if one.family == "Huge"]
    assert len(placed) == importlib.import_module("icon_classes").MOST
    assert {one.split for one in placed} == {"train", "test_seen"}


def test_logos_and_emoji_are_left_out(icons: ModuleType) -> None:
    given = {
        "logos": icon_set("logos", "A", {"star": bars(1)}, "Logos"),
        "fluent-emoji": icon_set("fluent-emoji", "B", {"star": bars(2)}),
        "ui": icon_set("ui", "C", {"star": bars(3)}, "UI 24px"),
    }
    assert [one.identity for one in icons.list_icons(given)] == ["ui_star"]


def test_identical_and_empty_icons_are_one_and_none(icons: ModuleType) -> None:
    given = {
        "a": icon_set("a", "A", {"star": bars(9), "star-fill": bars(9), "cloud": "<g/>"}),
        "b": icon_set("b", "B", {"star": bars(9)}),
    }
    assert [one.identity for one in icons.distinct(icons.list_icons(given))] == ["a_star"]


def test_copies_of_an_earlier_split_leave_the_later_one(icons: ModuleType) -> None:
    def icon(split: str, number: int, body: str) -> Any:
        svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">{body}</svg>'
        return icons.Icon(
            prefix="a", name=f"star-{number}", label="star", family="A", svg=svg, split=split
        )

    left = '<path d="M1 1 H9 V9 Z"/>'
    right = '<path d="M15 1 H7 V9 Z"/>'  # its mirror image
    other = '<rect x="2" y="9" width="11" height="4"/>'
    given = [icon("train", 1, left), icon("test", 2, right), icon("test", 3, other)]
    given.append(icon("val", 4, other))
    kept, copies = icons.without_copies({one: icons.compared(one.svg) for one in given})
    assert kept == [given[0], given[2]]
    assert copies == {"test": 1, "val": 1}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--size", "8"], "between 16 and 512"),
        (["--limit", "0"], "--limit 0 given: it must be at least 1"),
        ([], "no npm to fetch them"),
    ],
)
def test_mistakes_are_one_message_and_code_2(
    icons: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setenv("PATH", "")
    packages = str(tmp_path / "npm")
    assert icons.main([str(tmp_path / "set"), "--packages", packages, *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "set").exists()


def test_the_command_reads_the_package_as_npm_packs_it(icons: ModuleType, tmp_path: Path) -> None:
    files: dict[str, Any] = {f"json/{prefix}.json": one for prefix, one in sets().items()}
    files |= {"package.json": {"license": "MIT"}, "collections.json": {"set0": {}}}
    with tarfile.open(tmp_path / "iconify-json-2.2.535.tgz", "w:gz") as archive:
        for name, value in files.items():
            content = json.dumps(value).encode()
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    folder = tmp_path / "set"
    given = [str(folder), "--packages", str(tmp_path), "--size", "16", "--limit", "1"]
    assert icons.main(given) == 0
    assert json.loads((folder / "about.json").read_text())["images"]["test"] == len(NOUNS)
