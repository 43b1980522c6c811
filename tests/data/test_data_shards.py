from __future__ import annotations

import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from itertools import chain, pairwise

import numpy as np
import pytest
import torch

from advprop.data.batches.loaders import test_batches, train_batches
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.folders import load_folder
from advprop.data.shards import split as shard_split
from advprop.data.shards.loading import load_shards
from advprop.data.shards.split import ShardFiles, ShardSplit
from advprop.data.shards.writing import write_shards
from advprop.data.view import View

# forking while torch's threads run is torch's own choice, newer Pythons warn of it
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

LAID_OUT = {"train/a": 13, "train/b": 10, "val/a": 3, "val/b": 2, "test/a": 2, "test/b": 2}


@pytest.fixture
def shards(write_images, tmp_path):
    """23 training images in 6 shards, 5 for validation, 4 for the test."""
    write_shards(write_images(LAID_OUT, size=(20, 20)), tmp_path / "out", images_per_shard=4)
    return tmp_path / "out"


def flat(batches) -> list[int]:
    return list(chain.from_iterable(batch.indices.tolist() for batch in batches))


def bare_split(counts, shuffle_shards) -> ShardSplit:
    """So many images in each shard; no files."""
    shard_of = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return ShardSplit(
        labels=torch.zeros(len(shard_of), dtype=torch.int64),
        preprocessing=None,
        files=ShardFiles([f"{number}.tar" for number in range(len(counts))], []),
        shard_of=shard_of,
        extents=torch.zeros(len(shard_of), 2, dtype=torch.int64),
        keys=np.array([b""] * len(shard_of)),
        shuffle_shards=shuffle_shards,
    )


def test_images_and_labels_are_those_of_the_folder(write_images, tmp_path):
    root = write_images(LAID_OUT)
    write_shards(root, tmp_path / "out", images_per_shard=4)
    (root / "train" / "a" / "000.png").touch()
    data, folder = (
        load_shards(View(image_size=8), train=str(tmp_path / "out")),
        load_folder(root, View(image_size=8)),
    )
    assert data.class_names == folder.class_names == ("a", "b")
    assert data.name == "out"
    for name in ("train", "validation", "test"):
        split, files = getattr(data, name), getattr(folder, name)
        place = {path.removeprefix(f"{root}/"): index for index, path in enumerate(files.paths)}
        order = [place[key.decode() + ".png"] for key in split.keys]
        assert sorted(order) == list(range(len(files)))
        assert torch.equal(split.labels, files.labels[order])
        mine, theirs = (next(iter(test_batches(s, batch_size=99))).images for s in (split, files))
        assert torch.equal(mine, theirs[order])


@pytest.mark.parametrize("workers", [0, 2])
def test_two_ranks_see_every_image_once_an_epoch(shards, workers):
    augmentation = Augmentation(color_jitter=0.4)
    split = load_shards(View(image_size=8, augmentation=augmentation), train=str(shards)).train
    alone = list(train_batches(split, batch_size=6, seed=3, epoch=1))
    shares = [
        list(
            train_batches(
                split, batch_size=6, seed=3, epoch=1, num_workers=workers, rank=rank, world_size=2
            )
        )
        for rank in range(2)
    ]
    seen = flat(chain(*shares))
    assert len(seen) == len(set(seen)) == 18
    for whole, *parts in zip(alone, *shares, strict=True):
        assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
        assert torch.equal(whole.labels, torch.cat([part.labels for part in parts]))
    left_out = [set(range(23)) - set(split.epoch_order(3, epoch)[:18].tolist()) for epoch in (1, 2)]
    assert left_out[0] != left_out[1]
    assert sorted(split.epoch_order(3, 1).tolist()) == list(range(23))


def test_going_on_with_another_number_of_ranks_and_workers_changes_nothing(shards):
    split = load_shards(View(image_size=8, augmentation=Augmentation()), train=str(shards)).train
    whole = list(train_batches(split, batch_size=4, seed=0, epoch=2))
    rest = [
        list(
            train_batches(
                split, batch_size=4, seed=0, epoch=2, first_batch=2, num_workers=rank,
                rank=rank, world_size=2,
            )
        )
        for rank in range(2)
    ]  # fmt: skip
    for batch, *parts in zip(whole[2:], *rest, strict=True):
        assert batch.indices.tolist() == flat(parts)
        assert torch.equal(batch.images, torch.cat([part.images for part in parts]))


def test_the_order_is_a_function_of_seed_and_epoch():
    orders = [
        bare_split([50] * 8, 2).epoch_order(seed, epoch).tolist()
        for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))
    ]
    assert orders[0] == orders[1]
    assert all(sorted(order) == list(range(400)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize(
    ("counts", "window", "runs"),
    [([50] * 8, 2, 4), ([50] * 9, 8, 2), ([7, 1, 90, 2, 30], 1, 5), ([30, 0, 30], 1, 2)],
)
def test_the_order_stays_within_the_window_and_mixes_it(counts, window, runs):
    split = bare_split(counts, window)
    order = split.epoch_order(0, 0)
    assert sorted(order.tolist()) == list(range(sum(counts)))
    # a new run of shards begins where one comes that was not there for the last time before
    of_place = split.shard_of[order].tolist()
    groups, start = [], 0
    for place in range(1, len(of_place) + 1):
        if not set(of_place[start:place]) & set(of_place[place:]):
            groups.append(set(of_place[start:place]))
            start = place
    assert len(groups) == runs
    assert all(len(group) <= window for group in groups)
    assert len(groups) == 1 or max(map(len, groups)) - min(map(len, groups)) <= 1
    if counts == [50] * 8:
        changes = sum(first != second for first, second in pairwise(of_place))
        assert changes > 100  # the two of a run take turns
        assert len({tuple(split.shard_of[split.epoch_order(0, e)].tolist()) for e in range(5)}) == 5
        inside = order[split.shard_of[order] == 3]
        assert inside.tolist() != sorted(inside.tolist())


def test_the_split_survives_a_pickle(shards):
    split = load_shards(View(image_size=8, augmentation=Augmentation()), train=str(shards)).train
    expected = split.image(5, epoch=1)
    copy = pickle.loads(pickle.dumps(split))
    assert split.files._handles
    assert not copy.files._handles
    assert torch.equal(copy.image(5, epoch=1), expected)


@pytest.mark.full
def test_the_split_survives_a_spawned_process(shards, tmp_path):
    split = load_shards(View(image_size=8, augmentation=Augmentation()), train=str(shards)).train
    expected = split.image(5, epoch=1)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert torch.equal(torch.from_numpy(pool.submit(_pixels, split).result()), expected)


def _pixels(split: ShardSplit) -> np.ndarray:
    return split.image(5, epoch=1).numpy()


def test_a_forked_worker_reads_from_the_open_files(shards):
    split = load_shards(View(image_size=8), train=str(shards)).train
    expected = split.image(0)
    inherited = list(split.files._handles.values())
    assert inherited
    reading, writing = os.pipe()
    if not (child := os.fork()):
        try:
            seen = torch.equal(split.image(0), expected)
            os.write(writing, str(seen).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 99) == b"True"
    os.close(reading)
    os.close(writing)
    assert list(split.files._handles.values()) == inherited
    assert torch.equal(split.image(0), expected)


def test_no_more_files_are_open_than_allowed(shards, monkeypatch):
    monkeypatch.setattr(shard_split, "_MAX_OPEN", 2)
    split = load_shards(View(image_size=8), train=str(shards)).train
    for index in range(len(split)):
        split.read(index)
        assert len(split.files._handles) <= 2
    handles = list(split.files._handles.values())
    del split
    for handle in handles:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(handle)


def test_a_shard_that_changes_while_training_is_named(shards):
    split = load_shards(View(image_size=8), train=str(shards)).train
    split.image(0)  # the file is open
    with (shards / "train-000000.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(OSError, match=r"train-000000\.tar has changed since it was indexed"):
        split.image(0)


@pytest.mark.parametrize(
    ("patterns", "sizes"),
    [
        ({"train": ""}, (23, 5, 4)),
        ({"train": "/train-{000000..000005}.tar"}, None),
        ({"train": "/train-*.tar", "validation": "/val*.tar"}, (23, 5, 0)),
        ({"train": "/train-00000{0,1,{2..5}}.tar", "validation": "", "test": ""}, (23, 5, 4)),
        ({"train": "/train-00000[0-5].tar", "test": "/test-000000.tar"}, None),
    ],
)
def test_shards_by_braces_globs_and_folders(shards, patterns, sizes):
    patterns = {split: f"{shards}{pattern}" for split, pattern in patterns.items()}
    data = load_shards(View(image_size=8), **patterns)
    found = [
        0 if split is None else len(split) for split in (data.train, data.validation, data.test)
    ]
    assert all(found) or sizes is not None
    if sizes is not None:
        assert tuple(found) == sizes
    elif "test" in patterns:
        assert found[0] + found[1] == 23
    else:
        assert sum(found) == 23


def test_what_is_shared_off_depends_on_the_keys_alone(write_images, tmp_path):
    root = write_images({"train/a": 30, "train/b": 30, "val/a": 1, "val/b": 1})
    keys = []
    for count in (7, 60):
        write_shards(root, tmp_path / str(count), images_per_shard=count)
        data = load_shards(View(image_size=8), train=f"{tmp_path}/{count}/train-*.tar")
        keys.append([set(s.keys.tolist()) for s in (data.train, data.validation, data.test)])
        assert all(set(s.labels.tolist()) == {0, 1} for s in (data.validation, data.test))
    assert keys[0] == keys[1]
    assert sum(map(len, keys[0])) == len(set.union(*keys[0])) == 60
    assert 30 <= len(keys[0][0]) <= 50


def test_fewer_training_images_are_stratified_and_nested(shards):
    chosen = [
        load_shards(View(image_size=8, num_train=count), train=str(shards)).train
        for count in (4, 10, 23)
    ]
    for smaller, larger in pairwise(chosen):
        assert set(smaller.keys) < set(larger.keys)
    assert chosen[0].labels.bincount().tolist() == [2, 2]
    assert sorted(chosen[0].epoch_order(0, 0).tolist()) == [0, 1, 2, 3]
    whole = load_shards(View(image_size=8), train=str(shards)).train
    for split in chosen[:2]:
        index = whole.keys.tolist().index(split.keys[2])
        assert torch.equal(split.image(2), whole.image(index))
    with pytest.raises(ValueError, match="num_train=1: must be between 2"):
        load_shards(View(image_size=8, num_train=1), train=str(shards))


def test_evaluation_sees_no_augmentation(shards):
    plain = load_shards(View(image_size=8), train=str(shards))
    data = load_shards(View(image_size=8, augmentation=Augmentation(), seed=1), train=str(shards))
    assert torch.equal(data.validation.image(1, epoch=0), plain.validation.image(1))
    assert torch.equal(data.train.image(1), plain.train.image(1, epoch=4))
    assert not torch.equal(data.train.image(1, epoch=0), plain.train.image(1))
