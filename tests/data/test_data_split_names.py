"""Folders of splits by the names that people give them, and those that only look alike."""

from __future__ import annotations

import unicodedata

import pytest

from advprop.data.found import found_in
from advprop.data.preprocessing import Preprocessing
from advprop.data.sets.folders import load_folder, load_test_folder
from advprop.data.sets.stored import check_imagenet_c, load_imagenet_c
from advprop.data.shards.finding import find_shards
from advprop.data.shards.loading import load_shards
from advprop.data.shards.writing import write_shards
from advprop.data.view import View


def laid_out(*splits: str) -> dict[str, int]:
    return {f"{split}/{name}": 12 for split in splits for name in ("a", "b")}


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "val", "test"),
        ("Training", None, "Testing"),
        ("train", None, "testing"),
        ("TRN", "dev", "tst"),
        ("train", "Validation", "eval"),
        ("train2017", "val2017", None),
        ("training_set", None, "test_set"),
        ("1 Train", "2 Valid", "3 Test"),
        ("seg_train", None, "seg_test"),
        ("images-train", "images-val", "images-test"),
        ("trainset", "valset", "testset"),
    ],
)
def test_usual_names_are_splits(write_images, train, validation, test):
    given = {"train": train, "validation": validation, "test": test}
    root = write_images(laid_out(*filter(None, given.values())))
    data = load_folder(root, View(image_size=8))
    assert data.class_names == ("a", "b")
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    for split, folder in given.items():
        if split == "train" or folder is None:
            continue
        assert all(f"/{folder}/" in path for path in splits[split].paths)
        assert data.origin.splits[split] == f"{folder}/"
    assert all(f"/{train}/" in path for path in data.train.paths)
    if validation is None:
        shared = f"split off {train}/ by a hash of the file names"
        assert data.origin.splits["validation"] == shared
        assert data.origin.splits["train"] == f"the rest of {train}/"


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (("train", "test", "Testing"), "has Testing and test for the test split"),
        (("train", "valid", "dev"), "has dev and valid for the validation split"),
        (("training", "train"), "has train and training for the train split"),
        (
            ("train2014", "val2014", "train2017", "val2017"),
            "has train2014 and train2017 for the train split: keep one",
        ),
        (("Testing", "Validation"), "has Validation/, Testing/ but no train/"),
        (
            ("fold1", "fold2", "fold3"),
            r"fold1, fold2, fold3, which hold no images .*\(a, b\).*look",
        ),
        (("amazon", "webcam"), r"amazon, webcam, which hold no images .* but the same folders"),
    ],
)
def test_folders_that_look_like_splits_are_no_classes(write_images, splits, message):
    with pytest.raises(ValueError, match=message):
        load_folder(write_images(laid_out(*splits)), View(image_size=8))


def test_splits_inside_of_classes_and_masks_beside_images_are_refused(write_images):
    inner = {f"{name}/{split}": 3 for name in ("cat", "dog") for split in ("train", "test")}
    with pytest.raises(ValueError, match=r"cat, dog, which hold no images .*\(test, train\)"):
        load_folder(write_images(inner), View(image_size=8))


def test_images_directly_in_splits_are_refused(write_images):
    with pytest.raises(
        ValueError, match="test, train, which look like splits: each needs a folder"
    ):
        load_folder(write_images({"train": 5, "test": 5}), View(image_size=8))


@pytest.mark.parametrize(
    "counts",
    [
        {"bullet_train": 6, "test_tube": 6},
        {"valid": 6, "invalid": 6},
        {"train": 6, "bus": 6, "test": 6},
        {"cat/images": 6, "dog/images": 6},
        {"cat/2019": 3, "cat/2020": 3, "dog": 6},
        {"cat/indoors": 6, "dog/outdoors": 6},
        {"contest": 6, "strain": 6},
    ],
    ids=lambda counts: "-".join(counts),
)
def test_classes_that_only_sound_or_lie_like_splits_stay_classes(write_images, counts):
    data = load_folder(write_images(counts), View(image_size=8))
    assert set(data.class_names) == {name.split("/")[0] for name in counts}


def test_what_lies_beside_the_splits_is_named(write_images):
    root = write_images(laid_out("train", "val", "unlabelled", "test_old"))
    lines = found_in(load_folder(root, View(image_size=8))).lines()
    assert "skipped: 1 folder test_old/ beside train/, 1 folder unlabelled/ beside train/" in lines


@pytest.mark.parametrize("name", ["training-00.tar", "Train_00.tar", "set.trn.00.tar"])
def test_shards_are_called_by_the_same_words(tmp_path, name):
    for file in (name, "dev-00.tar", "my-testing-00.tar", "._train-00.tar"):
        (tmp_path / file).write_bytes(b"")
    found = find_shards(str(tmp_path), None, None)
    assert {split: [path.name for path in paths] for split, paths in found.items()} == {
        "train": [name], "validation": ["dev-00.tar"], "test": ["my-testing-00.tar"],
    }  # fmt: skip


def spelt(form: str, *names: str) -> list[str]:
    return [unicodedata.normalize(form, name) for name in names]


NAMES = ("caf\u00e9", "cafu", "\u00fcber", "zoo")  # sorted in another order in each form


@pytest.mark.parametrize(("train", "other"), [("NFC", "NFD"), ("NFD", "NFC"), ("NFD", "NFD")])
def test_names_with_accents_are_the_same_in_both_spellings(write_images, tmp_path, train, other):
    own, theirs = spelt(train, *NAMES), spelt(other, *NAMES)
    counts = {f"train/{name}": 5 for name in own} | {f"val/{name}": 1 for name in theirs}
    root = write_images(counts)
    data = load_folder(root, View(image_size=8))
    assert data.class_names == tuple(sorted(own))
    for path, label in zip(data.validation.paths, data.validation.labels, strict=True):
        (name,) = spelt(train, path.split("/")[-2])
        assert name == data.class_names[label]
    split = load_test_folder(
        root / "val", class_names=own, preprocessing=Preprocessing(image_shape=(3, 8, 8))
    )
    assert sorted(split.labels.tolist()) == [0, 1, 2, 3]
    assert [spelt(train, path.split("/")[-2])[0] for path in split.paths] == [
        own[label] for label in split.labels
    ]
    write_shards(root, tmp_path / "shards")
    shards = load_shards(View(image_size=8), train=str(tmp_path / "shards"))
    for index, label in enumerate(shards.validation.labels):
        name = shards.validation.keys[index].decode().split("/")[-2]
        assert spelt(train, name)[0] == shards.class_names[label]


def test_published_corruptions_are_matched_in_both_spellings(write_images):
    theirs = spelt("NFD", *NAMES)
    root = write_images({f"fog/1/{name}": 1 for name in theirs})
    own = spelt("NFC", *NAMES)
    check_imagenet_c(root, class_names=own, corruptions=["fog"], severities=[1])
    found = load_imagenet_c(root / "fog" / "1", class_names=own, channels=3)
    assert [spelt("NFC", path.split("/")[-2])[0] for path in found.paths] == [
        own[label] for label in found.labels
    ]


def test_two_spellings_in_one_folder_are_refused(write_images):
    both = [*spelt("NFC", "caf\u00e9"), *spelt("NFD", "caf\u00e9")]
    with pytest.raises(ValueError, match=r"differ only in how Unicode writes .*cafe\\u0301"):
        load_folder(write_images(dict.fromkeys([*both, "tea"], 3)), View(image_size=8))
