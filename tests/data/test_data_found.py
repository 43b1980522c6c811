"""What is told of a data set before a run begins."""

from __future__ import annotations

import json

from advprop.data.found import Found, found_in
from advprop.data.sets.builtin import load_builtin
from advprop.data.sets.folders import load_folder
from advprop.data.shards.loading import load_shards
from advprop.data.shards.writing import write_shards
from advprop.data.view import View
from advprop.recipes.builtin import digits

LAID_OUT = {
    "train/cat": 12, "train/dog": 3, "train/emu": 1, "val/cat": 2, "val/dog": 1, "val/emu": 1,
}  # fmt: skip


def test_counts_classes_and_small_classes(write_images):
    found = found_in(load_folder(write_images(LAID_OUT), View(image_size=8)))
    assert found.images == {"train": 16, "validation": 4}
    assert (found.num_classes, found.first_classes) == (3, ("cat", "dog", "emu"))
    assert (found.fewest_images, found.most_images, found.num_few) == (1, 12, 2)
    assert found.few == {"emu": 1, "dog": 3}
    first, second, *_ = found.lines()
    assert first.startswith("images: 3 classes (cat, dog, emu): 16 training images")
    assert "no test images" in first
    assert second.startswith("few training images: emu 1, dog 3 (below 10")


def test_classes_without_an_image_in_a_split_are_counted(write_images):
    data = load_folder(write_images({"a": 30, "b": 2, "c": 1}), View(image_size=8))
    found = found_in(data)
    assert found.without == {"validation": 1, "test": 2}
    assert "2 of 3 classes have no test images: nothing will be said about them" in found.lines()


def test_it_is_plain_data_and_back(write_images):
    found = found_in(load_folder(write_images(LAID_OUT), View(image_size=8)))
    assert Found(**json.loads(json.dumps(found.to_json()))).lines() == found.lines()


def test_names_from_a_disk_cannot_move_a_terminals_cursor(write_images):
    root = write_images({"red\x1b[31m": 9, "bad\udcff": 9, "\u00e9t\u00e9": 9})
    first = found_in(load_folder(root, View(image_size=8))).lines()[0]
    assert "red\\x1b[31m" in first
    assert "bad\\udcff" in first
    assert "\u00e9t\u00e9" in first


def test_a_run_begins_with_data_model_and_passes():
    config = digits()
    lines = config.start_lines(found_in(load_builtin("digits")).to_json())
    assert lines[0].startswith("digits: 10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9): 1,000 training")
    assert lines[-1].startswith("small_resnet, method advprop: 5 passes per image and epoch")


def test_shards_and_embedded_images_say_where_their_splits_come_from(write_images, tmp_path):
    write_shards(
        write_images({"train/a": 30, "train/b": 30, "val/a": 1, "val/b": 1}), tmp_path / "s"
    )
    shards = load_shards(View(image_size=8), train=str(tmp_path / "s"))
    assert found_in(shards).sources == {
        "train": "1 shards, train-000000.tar ...",
        "validation": "1 shards, validation-000000.tar ...",
    }
    alone = load_shards(
        View(image_size=8), train=str(tmp_path / "s" / "train-{000000..000000}.tar")
    )
    assert found_in(alone).sources["train"] == "the rest of 1 shards, train-000000.tar ..."
    assert "by a hash of the keys" in found_in(alone).sources["test"]
    assert set(found_in(load_builtin("digits")).sources) == {"train", "validation", "test"}
