from __future__ import annotations

import os
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from advprop.data.preprocessing import Augmentation, Preprocessing
from advprop.data.sets.folders import load_folder, load_test_folder
from advprop.data.view import View
from advprop.shapes import unit_range

LAID_OUT = {
    "train/cat": 4, "train/dog": 3, "val/cat": 2, "val/dog": 1, "test/cat": 1, "test/dog": 2,
}  # fmt: skip


def relative(split, root) -> list[str]:
    return [os.path.relpath(path, root) for path in split.paths]


def class_of(path: str) -> str:
    return path.split(os.sep)[-2]


def test_splits_as_laid_out(write_images):
    root = write_images(LAID_OUT)
    data = load_folder(root, View(image_size=8))
    assert data.name == "images"
    assert data.class_names == ("cat", "dog")
    assert data.image_shape == (3, 8, 8)
    assert relative(data.train, root) == [
        *(f"train/cat/00{number}.png" for number in range(4)),
        *(f"train/dog/00{number}.png" for number in range(3)),
    ]
    assert data.train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert data.validation.labels.tolist() == [0, 0, 1]
    assert relative(data.test, root) == ["test/cat/000.png", "test/dog/000.png", "test/dog/001.png"]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_validation_under_its_usual_names_and_without_a_test(write_images, name):
    root = write_images({"train/a": 2, "train/b": 2, f"{name}/a": 1, f"{name}/b": 1})
    data = load_folder(root, View(image_size=8))
    assert data.test is None
    assert (len(data.train), len(data.validation)) == (4, 2)


def test_a_folder_a_class_is_shared_out_without_leaks(write_images):
    root = write_images({"bird": 40, "cat": 40, "dog": 3})
    data = load_folder(root, View(image_size=8))
    splits = [set(relative(s, root)) for s in (data.train, data.validation, data.test)]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 83
    for split in splits:
        assert {path.split("/")[0] for path in split} == {"bird", "cat", "dog"}
    assert 45 <= len(data.train) <= 70
    for split in (data.train, data.validation, data.test):
        classes = [data.class_names[label] for label in split.labels]
        assert classes == [class_of(path) for path in split.paths]


def test_sharing_out_knows_no_place_and_moves_no_file_when_others_come(write_images, tmp_path):
    root = write_images({"cat": 30, "dog": 30})
    before = load_folder(root, View(image_size=8))
    names = [relative(split, root) for split in (before.train, before.validation, before.test)]
    root.rename(tmp_path / "moved")
    for number in range(100, 120):
        Image.new("RGB", (8, 8)).save(tmp_path / "moved" / "cat" / f"{number}.png")
    after = load_folder(tmp_path / "moved", View(image_size=8))
    for old, split in zip(names, (after.train, after.validation, after.test), strict=True):
        assert set(old) <= set(relative(split, tmp_path / "moved"))


def test_validation_is_shared_off_train_where_there_is_only_a_test(write_images):
    root = write_images({"train/a": 20, "train/b": 20, "test/a": 2, "test/b": 2})
    data = load_folder(root, View(image_size=8))
    assert len(data.test) == 4
    assert len(data.train) + len(data.validation) == 40
    assert not set(data.train.paths) & set(data.validation.paths)
    assert {class_of(path) for path in data.validation.paths} == {"a", "b"}


def test_a_lone_train_folder_is_shared_out_to_all_three(write_images):
    data = load_folder(write_images({"train/a": 20, "train/b": 20}), View(image_size=8))
    assert len(data.train) + len(data.validation) + len(data.test) == 40
    assert data.class_names == ("a", "b")


def test_a_class_may_be_called_train(write_images):
    data = load_folder(write_images({"train": 9, "bus": 9}), View(image_size=8))
    assert data.class_names == ("bus", "train")


def test_deeper_folders_links_and_odd_files(write_images, tmp_path):
    root = write_images({"a/deep/er": 4, "b": 3, "a": 1})
    (root / "b" / "notes.txt").write_text("no image")
    (root / "b" / ".hidden.png").write_bytes(b"")
    (root / ".cache").mkdir()
    (root / "b" / "000.png").rename(root / "b" / "000.PNG")
    (root / "a" / "loop").symlink_to(root / "a", target_is_directory=True)
    outside = write_images({"../elsewhere": 2}).parent / "elsewhere"
    (root / "b" / "linked").symlink_to(outside, target_is_directory=True)
    data = load_folder(root, View(image_size=8))
    paths = [p for s in (data.train, data.validation, data.test) for p in relative(s, root)]
    assert sorted(paths) == [
        "a/000.png", *(f"a/deep/er/00{number}.png" for number in range(4)),
        "b/000.PNG", "b/001.png", "b/002.png", "b/linked/000.png", "b/linked/001.png",
    ]  # fmt: skip


def test_fewer_training_images_are_stratified_and_nested(write_images):
    root = write_images({"train/a": 20, "train/b": 10, "val/a": 1, "val/b": 1})
    chosen = [load_folder(root, View(image_size=8, num_train=count)).train for count in (6, 15, 30)]
    for smaller, larger in pairwise(chosen):
        assert set(smaller.paths) < set(larger.paths)
    assert torch.bincount(chosen[1].labels).tolist() == [10, 5]
    assert [class_of(path) for path in chosen[0].paths] == ["a"] * 4 + ["b"] * 2
    assert chosen[0].labels.tolist() == [0] * 4 + [1] * 2
    with pytest.raises(ValueError, match="num_train=1: must be between 2"):
        load_folder(root, View(image_size=8, num_train=1))


def test_images_are_those_of_their_files(write_images):
    root = write_images(LAID_OUT, size=(8, 8))
    data = load_folder(root, View(image_size=8, crop_pct=1.0))
    batch = data.validation.__getitems__([(None, 2), (None, 0)])
    expected = [np.asarray(Image.open(data.validation.paths[index])) for index in (2, 0)]
    assert torch.equal(batch.images, torch.tensor(np.array(expected)).permute(0, 3, 1, 2))
    assert batch.labels.tolist() == [1, 0]
    assert batch.indices.tolist() == [2, 0]
    grey = load_folder(root, View(image_size=8, channels=1)).validation.image(0)
    assert grey.shape == (1, 8, 8)


def test_augmented_images_depend_on_seed_epoch_and_index_alone(write_images):
    root = write_images(LAID_OUT, size=(30, 30))

    def train(seed):
        return load_folder(root, View(image_size=8, augmentation=Augmentation(), seed=seed)).train

    split = train(0)
    first = split.image(3, epoch=5)
    assert torch.equal(first, unit_range(split.images([(0, 0), (5, 3)]))[1])
    assert torch.equal(first, train(0).image(3, epoch=5))
    assert not torch.equal(first, split.image(3, epoch=6))
    assert not torch.equal(first, train(1).image(3, epoch=5))
    assert first.min() >= 0
    assert first.max() <= 1


def test_equal_files_are_augmented_differently(write_images):
    root = write_images({"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1}, size=(30, 30))
    (root / "train/b/000.png").write_bytes((root / "train/a/000.png").read_bytes())
    split = load_folder(root, View(image_size=8, augmentation=Augmentation())).train
    assert torch.equal(split.image(0), split.image(1))
    assert not torch.equal(split.image(0, epoch=0), split.image(1, epoch=0))


def test_evaluation_sees_no_augmentation(write_images):
    root = write_images(LAID_OUT, size=(30, 30))
    plain = load_folder(root, View(image_size=8))
    augmented = load_folder(root, View(image_size=8, augmentation=Augmentation()))
    assert torch.equal(augmented.train.image(1), plain.train.image(1, epoch=4))
    assert torch.equal(augmented.validation.image(1, epoch=0), plain.validation.image(1))
    assert torch.equal(augmented.test.image(1, epoch=0), plain.test.image(1))


def test_a_folder_to_test_on_takes_the_models_labels(write_images):
    root = write_images({"dog": 2, "bird": 1})
    view = Preprocessing(image_shape=(3, 8, 8))
    split = load_test_folder(root, class_names=("dog", "cat", "bird"), preprocessing=view)
    assert [class_of(path) for path in split.paths] == ["bird", "dog", "dog"]
    assert split.labels.tolist() == [2, 0, 0]
    message = re.escape("1 classes that the model does not know (bird); it knows cat, dog")
    with pytest.raises(ValueError, match=message):
        load_test_folder(root, class_names=("cat", "dog"), preprocessing=view)
    (root / "dog" / "001.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 of 3 images cannot be read:\n.*dog/001\.png: empty"):
        load_test_folder(root, class_names=("bird", "dog"), preprocessing=view)
