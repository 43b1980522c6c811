from __future__ import annotations

import pickle
import re
import struct
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image

from advprop.data.batches.loaders import train_batches
from advprop.data.found import found_in
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.folders import load_folder
from advprop.data.sets.named import load_timm_dataset
from advprop.data.view import View

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def pixels_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture
def mnist(tmp_path):
    """60 and 20 images in the format of MNIST's own files; the label is the number modulo 10."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count, seed in (("train", 60, 0), ("t10k", 20, 1)):
        images = np.random.default_rng(seed).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for kind, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            header = struct.pack(f">{1 + array.ndim}i", magic, *array.shape)
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(header + array.tobytes())
    return tmp_path


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Writes parquet files of splits as the hub has them: {"train": [label, ...], ...}."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()

    def write(splits, *, names=("cat", "dog"), columns=("image", "label")):
        kind = datasets.ClassLabel(names=list(names)) if names else None
        folder = tmp_path / "pictures"
        folder.mkdir(exist_ok=True)
        for seed, (split, labels) in enumerate(splits.items()):
            images = [Image.fromarray(pixels_of(1000 * seed + n)) for n in range(len(labels))]
            table = datasets.Dataset.from_dict({columns[0]: images, columns[1]: labels})
            if kind:
                several = isinstance(labels[0], list)
                column = datasets.Sequence(kind) if several else kind
                table = table.cast_column(columns[1], column)
            table.to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))
        return f"hfds/{folder}"

    yield write
    datasets.enable_progress_bars()


def load(name, tmp_path, **settings):
    view = View(image_size=8, crop_pct=1.0, augmentation=settings.pop("augmentation", None))
    return load_timm_dataset(name, view, **{"root": tmp_path / "cache", **settings})


def test_torchvisions_files_are_read_as_they_are(mnist):
    data = load_timm_dataset(
        "torch/mnist", View(image_size=28, channels=1, crop_pct=1.0), root=mnist
    )
    assert data.name == "mnist"
    assert data.class_names[:2] == ("0 - zero", "1 - one")
    assert len(data.train) + len(data.validation) == 60
    assert len(data.test) == 20
    expected = np.random.default_rng(1).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    torch.testing.assert_close(data.test.image(3)[0], torch.tensor(expected[3] / 255).float())
    assert data.test.labels.tolist() == list(range(10)) * 2
    positions = data.train.positions.tolist() + data.validation.positions.tolist()
    assert sorted(positions) == list(range(60))
    assert set(data.validation.labels.tolist()) == set(range(10))
    for split in (data.train, data.validation):
        assert torch.equal(split.labels, split.positions % 10)


def test_one_split_alone_is_shared_out_to_all_three(mnist):
    data = load_timm_dataset("torch/mnist", View(image_size=28, channels=1), root=mnist, test=None)
    parts = [split.positions.tolist() for split in (data.train, data.validation, data.test)]
    assert sorted(chain.from_iterable(parts)) == list(range(60))
    again = load_timm_dataset("torch/mnist", View(image_size=28, channels=1), root=mnist, test=None)
    assert again.test.positions.tolist() == parts[2]


def test_a_split_that_stands_for_two_is_refused(mnist):
    # torchvision's MNIST takes every name but "train" for the test split
    with pytest.raises(ValueError, match="validation and test hold the same images"):
        load_timm_dataset(
            "torch/mnist", View(image_size=28, channels=1), root=mnist, validation="validation"
        )


def test_fewer_training_images_are_stratified(mnist):
    data = load_timm_dataset(
        "torch/mnist",
        View(image_size=28, channels=1, num_train=20),
        root=mnist,
        validation="test",
        test=None,
    )
    assert torch.bincount(data.train.labels).tolist() == [2] * 10
    assert data.test is None


def test_torchvisions_folders_give_the_images_of_ours(write_images):
    root = write_images({"train/a": 8, "train/b": 8, "val/a": 2, "val/b": 2}, size=(20, 20))
    settings = {"image_size": 8, "augmentation": Augmentation(), "seed": 3}
    ours = load_folder(root, View(**settings))
    theirs = load_timm_dataset(
        "torch/image_folder", View(**settings), root=root, validation="val", test=None
    )
    assert theirs.class_names == ours.class_names
    for split in ("train", "validation"):
        one, other = getattr(ours, split), getattr(theirs, split)
        keys = [(2, index, 1) for index in range(len(one))]
        assert torch.equal(one.images(keys), other.images(keys))
        assert torch.equal(one.labels, other.labels)


def test_a_missing_folder_of_a_split_is_noticed(write_images):
    # timm falls back to the whole folder there
    root = write_images({"train/a": 3, "train/b": 3})
    with pytest.raises(ValueError, match="test has other classes than"):
        load_timm_dataset("torch/image_folder", View(image_size=8), root=root)
    with pytest.raises(ValueError, match="train and test hold the same images"):
        load_timm_dataset("torch/image_folder", View(image_size=8), root=root / "train")


def test_hugging_face_tables_are_read_as_they_are(hub, tmp_path):
    name = hub({"train": [0, 1] * 12, "test": [1, 0, 1]}, columns=("picture", "kind"))
    data = load(name, tmp_path, input_key="picture", target_key="kind")
    assert data.class_names == ("cat", "dog")
    assert data.test.labels.tolist() == [1, 0, 1]
    expected = torch.tensor(pixels_of(1002)).permute(2, 0, 1) / 255
    torch.testing.assert_close(data.test.image(2), expected)
    assert len(data.train) + len(data.validation) == 24
    message = r"input_key='image' .* its first row has picture, kind$"
    with pytest.raises(ValueError, match=message):
        load(name, tmp_path)
    with pytest.raises(ValueError, match=r"cannot open the 'val' split .*'train', 'test'"):
        load(name, tmp_path, validation="val", input_key="picture", target_key="kind")


@pytest.mark.parametrize(
    ("labels", "names"),
    [([0, 2, 1], ("0", "1", "2")), (["owl", "ant", "owl"], ("ant", "owl"))],
)
def test_classes_without_names_have_those_of_their_labels(hub, tmp_path, labels, names):
    name = hub({"train": labels * 4, "test": labels}, names=None)
    data = load(name, tmp_path)
    assert data.class_names == names
    assert [names[label] for label in data.test.labels.tolist()] == [str(label) for label in labels]


def test_labels_that_are_no_classes_are_refused(hub, tmp_path):
    name = hub({"train": [0, 1] * 4, "test": [-1, -1]})
    with pytest.raises(
        ValueError, match=r"2 of the 2 labels of .* test .*-1 of image 0.*leave out"
    ):
        load(name, tmp_path)
    assert load(name, tmp_path, test=None).num_classes == 2


def test_lists_of_classes_are_several_labels_in_the_order_of_the_names(hub, tmp_path):
    """An empty list has no label, a label given twice is present, and rows are no strata."""
    rows = [[2], [], [0, 2, 0]]
    name = hub({"train": rows * 4, "test": rows}, names=("cat", "dog", "ant"))
    data = load(name, tmp_path)
    assert data.multi_label
    assert data.class_names == ("cat", "dog", "ant")
    expected = torch.tensor([[0.0, 0, 1], [0, 0, 0], [1, 0, 1]])
    assert torch.equal(data.test.labels, expected)
    for split in (data.train, data.validation):
        assert torch.equal(split.labels, expected[split.positions % 3])
    assert len(data.train) + len(data.validation) == 12
    assert found_in(data).lines()[1].startswith("few training images: dog 0")
    assert load(hub({"train": [[0], []] * 6}, names=["one"]), tmp_path / "b", test=None).multi_label


def test_lists_of_words_name_the_labels(hub, tmp_path):
    data = load(hub({"train": [["owl"], ["ant", "owl"]] * 6}, names=None), tmp_path, test=None)
    assert data.class_names == ("ant", "owl")
    assert torch.equal(data.train.labels[:, 0], (data.train.positions % 2).float())


@pytest.mark.parametrize(
    ("splits", "names", "message"),
    [
        ({"train": [[0], [1, -1]]}, ("a", "b"), "1 of the 3 labels .* 2 classes, as -1 of image 1"),
        ({"train": [[0], None]}, ("a", "b"), r"1 of the 2 .* classes, as None of image 1: .*put"),
        ({"train": [[0], [1]], "test": [[], []]}, ("a", "b"), "0 of the 0 .* test .*leave out"),
        ({"train": [[], []]}, None, "train has 0: at least 1 label is needed"),
        ({"train": [[], [0, 1], [1, 0]]}, None, r"without names, as \[0, 1\], which.*ClassLabel"),
        ({"train": [[[0]], [[1]]]}, None, r"without names, as \[\[0\]\], which"),
        ({"train": [["owl"], ["ant"]], "test": [["cat"]]}, None, "as 'cat' of image 0"),
        ({"train": [["owl"], None]}, None, "1 of the 2 labels .* as None of image 1"),
    ],
)
def test_lists_that_are_no_labels_are_refused(hub, tmp_path, splits, names, message):
    name = hub(splits, names=names)
    with pytest.raises(ValueError, match=message):
        load(name, tmp_path, test="test" if "test" in splits else None)


def test_workers_and_other_interpreters_get_the_same_images(hub, mnist, tmp_path):
    name = hub({"train": [0, 1] * 8, "test": [1, 0]})
    augmentation = Augmentation()
    for train in (
        load(name, tmp_path, augmentation=augmentation).train,
        load("torch/mnist", mnist, root=mnist, augmentation=augmentation).train,
    ):
        settings = {"batch_size": 4, "seed": 0, "epoch": 1}
        here = list(train_batches(train, **settings))
        there = list(train_batches(pickle.loads(pickle.dumps(train)), **settings, num_workers=2))
        for one, other in zip(here, there, strict=True):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)


def test_a_damaged_record_is_named(hub, tmp_path):
    name = hub({"train": [0, 1] * 8, "test": [1, 0]})
    train = load(name, tmp_path).train
    place = int(train.positions[5])

    def record(position, channels):
        if position == place:
            raise OSError("image file is truncated")
        return train.record(position, channels)

    damaged = replace(train, record=record)
    assert torch.equal(damaged.image(4), train.image(4))
    message = re.escape(f"{name} train[{place}]: image file is truncated")
    with pytest.raises(ValueError, match=f"^cannot read the image {message}"):
        damaged.image(5)


@pytest.mark.parametrize("name", ["cifar10", "tfds/mnist", "hfids/mnist", "torch/", "wds/x"])
def test_other_kinds_of_names_are_refused(name):
    with pytest.raises(ValueError, match=r"write hfds/NAME .* or torch/NAME"):
        load_timm_dataset(name, View(image_size=8))


def test_what_is_not_there_is_told_with_the_librarys_reason(tmp_path):
    with pytest.raises(ValueError, match=r"'train' split of torch/cifar10 .*download=True"):
        load_timm_dataset("torch/cifar10", View(image_size=8), root=tmp_path)
    with pytest.raises(ValueError, match="Unknown torchvision dataset nonsense"):
        load_timm_dataset("torch/nonsense", View(image_size=8), root=tmp_path)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"package datasets: pip install .advprop\[data\]"):
        load_timm_dataset("hfds/mnist", View(image_size=8))
