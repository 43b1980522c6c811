"""The configuration of data: what stands in it reaches the loading functions."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from advprop.config.data import (
    BuiltinDataConfig,
    DataConfig,
    FolderDataConfig,
    TimmDataConfig,
)
from advprop.data.batches.mixing import Mixing
from advprop.data.batches.sampling import Sampling
from advprop.data.preprocessing import Augmentation

EVERY = TypeAdapter(DataConfig)


@pytest.mark.parametrize(
    "config",
    [
        BuiltinDataConfig(name="digits", sampling=Sampling(repeats=2)),
        FolderDataConfig(mixing=Mixing(mixup=0.2), augmentation=Augmentation(random_erasing=0.5)),
        TimmDataConfig(name="torch/cifar10", max_unreadable="1/100"),
    ],
)
def test_a_saved_configuration_is_read_again(config):
    assert EVERY.validate_json(EVERY.dump_json(config)) == config


def test_older_configurations_need_none_of_it():
    config = EVERY.validate_python({"kind": "folder", "root": "images"})
    assert config.sampling == Sampling()
    assert not config.mixing.is_on
    assert config.max_unreadable == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixing": {"mixup": -1}}, "mixup=-1"),
        ({"mixing": {"blend": 1}}, "blend"),
        ({"sampling": {"repeats": 0}}, "repeats=0"),
        ({"augmentation": {"hflop": 0.5}}, "hflop"),
        ({"augmentation": {"erasing_mode": "grey"}}, "erasing_mode"),
        ({"max_unreadable": 1}, "max_unreadable=1"),
        ({"crop_pct": 2}, "crop_pct=2"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        EVERY.validate_python({"kind": "folder", **settings})


def test_a_folder_is_loaded_with_all_of_its_settings(write_images):
    root = write_images({"train/a": 6, "train/b": 6, "val/a": 1, "val/b": 1})
    config = FolderDataConfig(
        root=root, image_size=9, channels=1, num_train=8, interpolation="bilinear", crop_pct=0.5,
        augmentation=Augmentation(hflip=0.1), max_unreadable=0.25,
    )  # fmt: skip
    data = config.load(7)
    assert data.image_shape == (1, 9, 9)
    assert (data.preprocessing.interpolation, data.preprocessing.crop_pct) == ("bilinear", 0.5)
    train = data.train
    assert (len(train), train.seed, train.max_unreadable) == (8, 7, 0.25)
    assert train.augmentation == Augmentation(hflip=0.1)
    assert data.validation.max_unreadable == 0
    assert data.validation.augmentation is None


def test_a_data_set_of_timm_is_loaded_with_all_of_its_settings(write_images):
    root = write_images({"learn/a": 6, "learn/b": 6, "check/a": 1, "check/b": 2})
    config = TimmDataConfig(
        name="torch/image_folder", root=root, train="learn", test="check", image_size=9
    )
    data = config.load(7)
    assert data.train.seed == 7
    assert len(data.test) == 3
    assert len(data.train) + len(data.validation) == 12


def test_a_source_must_be_named():
    with pytest.raises(ValueError, match=r"data\.root=DIR"):
        FolderDataConfig().load(0)
    with pytest.raises(ValueError, match=r"data\.name=torch/cifar10"):
        TimmDataConfig().load(0)
