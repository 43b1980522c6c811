"""Tables of labels: what counts as a label, which rows are in which split, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from advprop.data.found import found_in
from advprop.data.identity import data_facts
from advprop.data.sets.table import load_table, load_test_table
from advprop.data.splits import ImageData
from advprop.data.view import View

VIEW = View(image_size=12)
NAN = math.nan
CHEXPERT = """Path,Sex,Age,AP/PA,Edema,Fracture,split
p1/a.png,Male,61,AP,1.0,,train
p2/a.png,Female,1,,0.0,-1.0,train
p3/a.png,Male,0,AP,-1.0,,train
p4/a.png,Male,44,AP,,1.0,Valid
p5/a.png,Male,70,AP,1.0,0.0,test
"""


@pytest.fixture
def folder(write_images: Callable[..., Path]) -> Path:
    return write_images({f"p{number}": 1 for number in range(1, 31)})


def loaded(folder: Path, text: str, **options: object) -> ImageData:
    for image in folder.glob("p*/000.png"):
        image.rename(image.with_name("a.png"))
    (folder / "labels.csv").write_text(text)
    return load_table(folder / "labels.csv", VIEW, **options)


def test_chexperts_form(folder: Path) -> None:
    """Sex, age and view are no labels, uncertain is unknown, a row without labels passed over."""
    data = loaded(folder, CHEXPERT)
    assert data.class_names == ("Edema", "Fracture")
    assert data.multi_label
    expected = {
        "train": [[1.0, NAN], [0.0, NAN]],
        "validation": [[NAN, 1.0]],
        "test": [[1.0, 0.0]],
    }
    for name, labels in expected.items():
        found = getattr(data, name).labels
        torch.testing.assert_close(found, torch.tensor(labels), equal_nan=True)
    assert [Path(name).parts[0] for name in data.train.names()] == ["p1", "p2"]
    assert data.train.image(1).shape == (3, 12, 12)
    assert data.origin.passed_over == {"rows without a known label": 1}
    lines = found_in(data).lines()
    assert lines[0].startswith("labels: 2 labels (Edema, Fracture): 2 training images")
    assert lines[1].startswith("few training images: Fracture 0, Edema 1 (below 10, a label is")


def rows(count: int = 30) -> str:
    lines = [f"p{number}/a.png,{number % 2},{number % 3 % 2}" for number in range(1, count + 1)]
    return "\n".join(["file,one,two", *lines])


def test_without_a_split_column_by_a_hash_of_the_paths(folder: Path, tmp_path: Path) -> None:
    data = loaded(folder, rows())
    assert [len(data.train), len(data.validation), len(data.test)] == [19, 7, 4]
    facts, moved = data_facts(data), tmp_path / "moved"
    folder.rename(moved)
    assert data_facts(load_table(moved / "labels.csv", VIEW)) == facts
    # a further image leaves the others where they were
    fewer = loaded(moved, rows(29))
    assert set(fewer.test.names()) <= set(data.test.names())


def test_columns_and_root_can_be_named(folder: Path, tmp_path: Path) -> None:
    loaded(folder, rows())
    table = tmp_path / "elsewhere.csv"
    table.write_text("one,number,picture,part\n" + "\n".join(
        f"{n % 2},{n},p{n}/a.png,{'train' if n < 20 else 'val'}" for n in range(1, 31)
    ))  # fmt: skip
    options = {"image_column": "picture", "root": folder, "split_column": "part"}
    data = load_table(table, VIEW, label_columns=("one",), **options)
    assert data.class_names == ("one",)
    assert [len(data.train), len(data.validation), data.test] == [19, 11, None]


def test_labels_tell_data_sets_apart(folder: Path) -> None:
    known = data_facts(loaded(folder, rows()))["images"]["train"]["order_sha256"]
    unknown = data_facts(loaded(folder, rows().replace(",0,", ",,")))
    assert unknown["images"]["train"]["order_sha256"] != known


def test_a_table_of_test_images(folder: Path) -> None:
    loaded(folder, rows())
    (folder / "test.csv").write_text("file,two,note,one\np7/a.png,1,x,\np8/a.png,,y,\n")
    split = load_test_table(
        folder / "test.csv", label_names=("one", "two"), preprocessing=VIEW.preprocessing
    )
    torch.testing.assert_close(split.labels, torch.tensor([[NAN, 1.0]]), equal_nan=True)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, r"labels\.csv is empty: it needs a header and a row"),
        ("file,one\n", {}, "has a header and no rows"),
        ("file,one\np1/a.png,1,0\n", {}, "row 2 has 3 cells, the header 2"),
        ("file,one,one\np1/a.png,1,0\n", {}, "two columns one"),
        ("file;one\np1/a.png;1\n", {}, "has one column, file;one: separate columns by commas"),
        ("file,sex\np1/a.png,male\n", {}, "no column of labels, which are 1, 0, -1 or empty"),
        (rows(), {"label_columns": ("three",)}, "no column three; it has file, one, two"),
        (rows(), {"image_column": "picture", "label_columns": ("one",)}, "no column picture"),
        (rows(), {"split_column": "fold"}, "no column fold; it has file, one, two"),
        ("file,a\np1/a.png,2\n", {"label_columns": ("a",)}, "column a has 2: labels are 1, 0, or"),
        ("file,a\np1/a.png,1\np1/a.png,0\n", {}, r"1 images twice \(p1/a\.png\)"),
        ("file,a,split\np1/a.png,1,fold 3\n", {}, "rows of split fold 3: write train, val, test"),
        ("file,a,split\np1/a.png,1,val\n", {}, "no rows of split train with a known label"),
        ("file,a\np1/b.png,1\np2/a.png,1\np3/a.png,0\n", {}, "p1/b.png"),
    ],
)  # fmt: skip
def test_what_is_refused(folder: Path, text: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loaded(folder, text, **options)
