from __future__ import annotations

import os

import pytest

from advprop.data.listing import classes as listing
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.folders import load_folder
from advprop.data.view import View

LAID_OUT = {
    "train/cat": 4, "train/dog": 3, "val/cat": 2, "val/dog": 1, "test/cat": 1, "test/dog": 2,
}  # fmt: skip


def test_a_wrong_policy_shows_before_training(write_images):
    with pytest.raises(ValueError, match="timm knows no such policy"):
        load_folder(
            write_images(LAID_OUT),
            View(image_size=8, augmentation=Augmentation(auto_augment="nonsense")),
        )


def test_all_unreadable_files_are_named_at_once(write_images):
    root = write_images(LAID_OUT)
    (root / "train" / "cat" / "001.png").write_bytes(b"")
    (root / "val" / "dog" / "000.png").write_bytes(b"text")
    with pytest.raises(ValueError, match="2 of 13 images cannot be read") as error:
        load_folder(root, View(image_size=8))
    for name in ("train/cat/001.png", "val/dog/000.png"):
        assert name in str(error.value)
    assert "train/cat/000.png" not in str(error.value)


def test_large_sets_are_not_opened_at_start_but_name_the_file_when_it_comes(
    write_images, monkeypatch
):
    monkeypatch.setattr(listing, "MAX_CHECKED_FILES", 12)
    root = write_images(LAID_OUT)
    (root / "train" / "cat" / "001.png").write_bytes(b"")
    data = load_folder(root, View(image_size=8))
    with pytest.raises(ValueError, match=r"cannot read the image .*train/cat/001\.png"):
        data.train.image(1, epoch=0)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train/a": 1, "train/b": 1, "val/a": 1}, "val has other classes than train/: without b"),
        (
            {"train/a": 1, "train/b": 1, "test/a": 1, "test/b": 1, "test/c": 1},
            "test has other classes than train/: with c, which train/ lacks",
        ),
        ({"train/a": 3, "val/a": 1}, r"one class only \(a\): at least 2"),
        ({"a": 5}, r"one class only \(a\): at least 2"),
        ({"a": 3, "b": 0, "c": 0}, "no images for the class b, c in .*fill or delete"),
        (
            {"train/a": 3, "train/b": 1, "val/a": 1, "val/b": 0},
            "no images for the class b in .*val",
        ),
        ({"a": 2, "b": 2}, "too few images .*none is left for test.*at least 3.*largest has 2"),
        ({"": 2, "a": 1}, "2 images lie in .*move each into the folder of its class"),
        ({"": 0}, "holds no images: a folder for each class is needed"),
        ({"val/a": 1, "val/b": 1, "test/a": 1}, "has val/, test/ but no train/"),
        ({"train/a": 1, "val/a": 1, "valid/a": 1}, "has val and valid for the validation split"),
    ],
)
def test_folders_that_make_no_data_set_are_refused(write_images, counts, message):
    with pytest.raises(ValueError, match=message):
        load_folder(write_images(counts), View(image_size=8))


def test_missing_folders_and_files_in_their_place_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere"):
        load_folder(tmp_path / "nowhere", View(image_size=8))
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="file is not a folder"):
        load_folder(tmp_path / "file", View(image_size=8))


def test_folders_that_may_not_be_read_are_not_passed_over(write_images, monkeypatch):
    root = write_images({"a/locked": 2, "a": 2, "b": 4})
    scandir = os.scandir

    def guarded(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    with pytest.raises(PermissionError, match="locked"):
        load_folder(root, View(image_size=8))


def test_long_lists_are_shortened(write_images):
    root = write_images({f"class{number:02d}": 0 for number in range(30)})
    with pytest.raises(ValueError, match=r"class00, .*class09, and 20 more"):
        load_folder(root, View(image_size=8))
