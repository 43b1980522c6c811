from __future__ import annotations

import random
from itertools import chain

import numpy as np
import pytest
import torch

from advprop.data.batches.loaders import num_train_batches, test_batches, train_batches
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.folders import load_folder
from advprop.data.splits import ArraySplit, ImageSplit, Key
from advprop.data.view import View

# forking while torch's threads run is torch's own choice, newer Pythons warn of it
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def array_split(count: int) -> ArraySplit:
    """Image i is filled with the number i."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return ArraySplit(pixels=pixels, labels=torch.arange(count) % 3)


class RecordingSplit(ImageSplit):
    """Remembers what was asked for."""

    def __init__(self, count: int) -> None:
        self.labels = torch.zeros(count, dtype=torch.int64)
        self.asked: list[tuple[int | None, int]] = []

    def images(self, keys):
        self.asked += keys
        return torch.zeros(len(keys), 1, 1, 1)


def indices(batches) -> list[list[int]]:
    return [batch.indices.tolist() for batch in batches]


def flat(batches) -> list[int]:
    return list(chain.from_iterable(indices(batches)))


def assert_same_batches(first, second) -> None:
    first, second = list(first), list(second)
    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.indices, other.indices)


def test_an_epoch_has_every_image_at_most_once_with_its_own_label():
    split = array_split(103)
    batches = list(train_batches(split, batch_size=10, seed=0, epoch=0))
    assert [len(batch) for batch in batches] == [10] * 10
    seen = torch.cat([batch.indices for batch in batches])
    assert len(seen.unique()) == 100
    for batch in batches:
        assert torch.equal(batch.labels, batch.indices % 3)
        assert torch.equal(batch.images[:, 0, 0, 0].long(), batch.indices)


def test_the_order_is_a_function_of_seed_and_epoch():
    split = array_split(60)

    def order(seed, epoch):
        torch.rand(1)  # whatever else happens
        return indices(train_batches(split, batch_size=6, seed=seed, epoch=epoch))

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != [list(range(start, start + 6)) for start in range(0, 60, 6)]


def test_which_images_a_partial_batch_leaves_out_changes_with_the_epoch():
    left_out = [
        set(range(23)) - set(flat(train_batches(array_split(23), batch_size=5, seed=0, epoch=e)))
        for e in range(20)
    ]
    assert all(len(missing) == 3 for missing in left_out)
    assert len(set.union(*left_out)) > 15


def test_batches_are_sized_and_can_be_iterated_over_again():
    batches = train_batches(array_split(23), batch_size=5, seed=0, epoch=0)
    assert len(batches) == num_train_batches(23, batch_size=5) == 4
    assert_same_batches(batches, batches)


def test_a_split_smaller_than_a_batch_is_one_batch():
    (batch,) = train_batches(array_split(7), batch_size=64, seed=0, epoch=0)
    assert sorted(batch.indices.tolist()) == list(range(7))
    assert num_train_batches(7, batch_size=64) == 1


@pytest.mark.parametrize("first", [0, 1, 7, 10])
def test_going_on_from_a_batch_reads_nothing_before_it(first):
    split = RecordingSplit(103)
    whole = indices(train_batches(split, batch_size=10, seed=3, epoch=2))
    split.asked.clear()
    rest = train_batches(split, batch_size=10, seed=3, epoch=2, first_batch=first)
    assert len(rest) == 10 - first
    assert not split.asked
    assert indices(rest) == whole[first:]
    assert split.asked == [Key(2, index) for batch in whole[first:] for index in batch]


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("first", [0, 3])
def test_ranks_share_the_batches_of_one_process(world_size, first):
    split = array_split(103)
    settings = {"batch_size": 12, "seed": 1, "epoch": 4, "first_batch": first}
    alone = indices(train_batches(split, **settings))
    shares = [
        indices(train_batches(split, **settings, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == alone
    assert {len(part) for share in shares for part in share} == {12 // world_size}


def test_ranks_get_equal_shares_of_a_split_smaller_than_a_batch():
    shares = [
        indices(train_batches(array_split(7), batch_size=8, seed=0, epoch=0, rank=r, world_size=2))
        for r in range(2)
    ]
    assert [[len(batch) for batch in share] for share in shares] == [[3], [3]]
    assert len(set(shares[0][0]) | set(shares[1][0])) == 6


def test_evaluation_has_every_image_once_and_in_order():
    split = RecordingSplit(23)
    batches = test_batches(split, batch_size=5)
    assert len(batches) == 5
    assert indices(batches) == [list(range(s, min(s + 5, 23))) for s in range(0, 23, 5)]
    assert split.asked == [Key(None, index) for index in range(23)]


def test_a_limit_takes_the_classes_in_proportion_and_always_the_same_images():
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)
    split = ArraySplit(pixels=torch.zeros(100, 1, 1, 1, dtype=torch.uint8), labels=labels)
    chosen = flat(test_batches(split, batch_size=4, limit=20))
    assert labels[chosen].bincount().tolist() == [12, 6, 2]
    assert chosen == sorted(set(chosen)) == flat(test_batches(split, batch_size=9, limit=20))
    assert set(flat(test_batches(split, batch_size=4, limit=10))) < set(chosen)
    assert indices(test_batches(split, batch_size=4, limit=100)) == indices(
        test_batches(split, batch_size=4)
    )
    assert len(flat(test_batches(array_split(10), batch_size=4, limit=99))) == 10


def test_a_limit_below_the_number_of_classes_is_spread_over_them():
    split = ArraySplit(
        pixels=torch.zeros(40, 1, 1, 1, dtype=torch.uint8), labels=torch.arange(40) // 4
    )
    chosen = flat(test_batches(split, batch_size=9, limit=5))
    assert split.labels[chosen].tolist() == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(write_images, workers):
    root = write_images({"train/a": 6, "train/b": 6, "val/a": 2, "val/b": 3}, size=(20, 20))
    settings = Augmentation(auto_augment="rand-m9-mstd0.5")
    data = load_folder(root, View(image_size=8, augmentation=settings))
    for make in (
        lambda n: train_batches(data.train, batch_size=4, seed=0, epoch=1, num_workers=n),
        lambda n: train_batches(
            data.train, batch_size=4, seed=0, epoch=1, num_workers=n, first_batch=1
        ),
        lambda n: test_batches(data.validation, batch_size=2, num_workers=n),
    ):
        assert_same_batches(make(0), make(workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_random_streams_are_left_alone(write_images, workers):
    root = write_images({"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 1}, size=(20, 20))
    train = load_folder(
        root, View(image_size=8, augmentation=Augmentation(auto_augment="v0"))
    ).train
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    list(train_batches(train, batch_size=2, seed=0, epoch=0, num_workers=workers))
    list(test_batches(train, batch_size=2, num_workers=workers))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_file_ends_in_one_line_that_names_it(write_images, workers):
    root = write_images({"train/a": 4, "train/b": 4, "val/a": 1, "val/b": 1})
    data = load_folder(root, View(image_size=8))
    (root / "train" / "b" / "002.png").write_bytes(b"damaged since the start")
    with pytest.raises(ValueError, match=r"^cannot read the image .*train/b/002\.png: ") as error:
        list(train_batches(data.train, batch_size=2, seed=0, epoch=0, num_workers=workers))
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_the_evaluation_of_every_image(world_size):
    split = array_split(23)
    shares = [
        test_batches(split, batch_size=4, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    assert sorted(chain.from_iterable(map(flat, shares))) == list(range(23))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    whole = indices(test_batches(split, batch_size=4))
    assert [whole[rank::world_size] for rank in range(world_size)] == [indices(s) for s in shares]


def test_a_process_may_have_nothing_to_evaluate():
    assert flat(test_batches(array_split(3), batch_size=4, rank=1, world_size=2)) == []


def test_batches_take_their_order_from_the_split():
    class Sorted(ArraySplit):
        def epoch_order(self, seed, epoch):
            return torch.arange(len(self)).roll(seed + epoch)

    split = Sorted(**vars(array_split(6)))
    batches = train_batches(split, batch_size=3, seed=1, epoch=1)
    assert indices(batches) == [[4, 5, 0], [1, 2, 3]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"world_size": 3}, "batch_size=8 cannot be divided by 3 processes.*multiple of 3"),
        ({"first_batch": 3}, "first_batch=3: the epoch has 2 batches"),
        ({"first_batch": -1}, "first_batch=-1"),
    ],
)
def test_numbers_out_of_bounds_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        train_batches(array_split(20), **{"batch_size": 8, "seed": 0, "epoch": 0, **settings})


def test_more_processes_than_images_are_refused():
    with pytest.raises(ValueError, match="3 images cannot be shared by 4 processes"):
        train_batches(array_split(3), batch_size=4, seed=0, epoch=0, world_size=4)


def test_a_limit_below_one_is_refused():
    with pytest.raises(ValueError, match="limit=0: must be at least 1"):
        test_batches(array_split(3), batch_size=4, limit=0)
