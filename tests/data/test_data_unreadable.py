from __future__ import annotations

import warnings
from types import SimpleNamespace

import pytest
import torch

from advprop.data.batches.loaders import test_batches, train_batches
from advprop.data.batches.workers import UnreadableTally
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.folders import load_folder
from advprop.data.splits import Key
from advprop.data.view import View

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

LAID_OUT = {"train/a": 9, "train/b": 9, "val/a": 2, "val/b": 2}


@pytest.fixture
def damaged(write_images):
    """A split of 18 images, two of which cannot be read: 2 (class a) and 13 (class b)."""

    def load(max_unreadable=0.2, **settings):
        root = write_images(LAID_OUT, size=(20, 20))
        train = load_folder(
            root, View(image_size=8, max_unreadable=max_unreadable, **settings)
        ).train
        (root / "train/a/002.png").write_bytes(b"")
        (root / "train/b/004.png").write_bytes((root / "train/b/004.png").read_bytes()[:150])
        return train

    return load


def epoch_of(split, tally, *, epoch=0, **settings):
    return list(train_batches(split, batch_size=6, seed=0, epoch=epoch, tally=tally, **settings))


def tally_of(split):
    return UnreadableTally(max_share=split.max_unreadable, num_images=len(split))


@pytest.mark.filterwarnings("ignore:cannot read the image")
@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_readable_images_of_the_class_stand_in_as_further_copies(damaged, augmentation):
    split = damaged(augmentation=augmentation)
    order = split.epoch_order(0, 0)
    batches = epoch_of(split, tally_of(split))
    shown = torch.cat([batch.indices for batch in batches])
    copies = torch.cat([batch.copies for batch in batches])
    other = shown != order
    assert sorted(order[other].tolist()) == [2, 13]
    assert torch.equal(split.labels[order], torch.cat([batch.labels for batch in batches]))
    assert not {2, 13} & set(shown.tolist())
    assert (copies[other] >= 18).all()
    assert not copies[~other].any()
    for batch in batches:
        keys = [
            Key(0, *use)
            for use in zip(*map(torch.Tensor.tolist, (batch.indices, batch.copies)), strict=True)
        ]
        assert torch.equal(batch.images, split.images(keys))
    names = [name for batch in batches for name in batch.unreadable]
    assert sorted(name.split(":")[0].rpartition("train/")[2] for name in names) == [
        "a/002.png", "b/004.png",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore:cannot read the image")
def test_what_stands_in_is_a_function_of_seed_epoch_index_and_copy(damaged):
    split = damaged()

    def stand_in(epoch, copy=0, seed=0):
        object.__setattr__(split, "seed", seed)
        return int(split.__getitems__([Key(epoch, 2, copy)]).indices[0])

    assert [stand_in(epoch) for epoch in range(9)] == [stand_in(epoch) for epoch in range(9)]
    assert len({stand_in(epoch) for epoch in range(9)}) > 2
    assert len({stand_in(0, copy) for copy in range(9)}) > 2
    assert len({stand_in(0, seed=seed) for seed in range(9)}) > 2


@pytest.mark.parametrize("workers", [0, 2])
def test_each_file_is_warned_of_and_counted_once(damaged, workers):
    split = damaged()
    tally = tally_of(split)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for epoch in range(2):
            epoch_of(split, tally, epoch=epoch, num_workers=workers)
    told = [str(w.message) for w in caught if "cannot read" in str(w.message)]
    assert sorted(text.split(":")[0].rpartition("train/")[2] for text in told) == [
        "a/002.png", "b/004.png",
    ]  # fmt: skip
    assert all("another image stands in for it" in text for text in told)
    assert tally.count == 2


@pytest.mark.filterwarnings("ignore:cannot read the image")
@pytest.mark.parametrize("workers", [0, 1])
def test_more_than_the_share_ends_in_a_list(damaged, workers):
    split = damaged(max_unreadable=0.1)  # 1.8 images
    with pytest.raises(ValueError, match=r"2 of 18 training .*max_unreadable=0\.1") as error:
        epoch_of(split, None, num_workers=workers)
    assert "a/002.png: empty" in str(error.value)
    assert "b/004.png: " in str(error.value)


def test_by_default_the_first_is_refused(damaged):
    split = damaged(max_unreadable=0.0)
    with pytest.raises(ValueError, match=r"^cannot read the image .*train/[ab]/00[24]\.png"):
        epoch_of(split, None)


def test_evaluation_images_are_never_replaced(damaged):
    with pytest.raises(ValueError, match=r"^cannot read the image .*a/002\.png"):
        list(test_batches(damaged(), batch_size=4))


def test_a_set_that_is_gone_ends_in_a_message(write_images):
    root = write_images(LAID_OUT)
    split = load_folder(root, View(image_size=8, max_unreadable=0.9)).train
    for path in split.paths:
        (root / path).unlink()
    with pytest.raises(ValueError, match="no such file; nor can 10 other images"):
        epoch_of(split, None)


def test_known_damage_stops_no_start_where_it_is_allowed(write_images):
    root = write_images(LAID_OUT)
    (root / "train/a/002.png").write_bytes(b"")
    assert len(load_folder(root, View(image_size=8, max_unreadable=0.1)).train) == 18
    (root / "val/a/001.png").write_bytes(b"")
    with pytest.raises(ValueError, match="1 of 4 images cannot be read"):
        load_folder(root, View(image_size=8, max_unreadable=0.1))


def test_the_only_image_of_its_class_has_one_of_another_stand_in(write_images):
    root = write_images({"train/a": 1, "train/b": 5, "val/a": 1, "val/b": 1})
    (root / "train/a/000.png").write_bytes(b"")
    split = load_folder(root, View(image_size=8, max_unreadable=0.5)).train
    batch = split.__getitems__([Key(0, 0)])
    assert batch.labels.tolist() == [1]
    assert batch.indices[0] > 0


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_shares_out_of_bounds_are_refused(write_images, share):
    with pytest.raises(ValueError, match=r"max_unreadable=.* at least 0"):
        load_folder(write_images(LAID_OUT), View(image_size=8, max_unreadable=share))


@pytest.mark.filterwarnings("ignore:photo")
@pytest.mark.parametrize(("num_processes", "allowed"), [(1, 5), (2, 2), (5, 1), (6, 0)])
def test_processes_together_stay_within_the_share(num_processes, allowed):
    tally = UnreadableTally(max_share=0.05, num_images=100, num_processes=num_processes)
    batch = lambda n: SimpleNamespace(unreadable=(f"photo {n}",))  # noqa: E731
    for number in range(allowed):
        tally.add(batch(number))
    with pytest.raises(ValueError, match=f"^{allowed + 1} of 100 .* max_unreadable=0.05 allows"):
        tally.add(batch(allowed))
