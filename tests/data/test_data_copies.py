"""The same image several times in an epoch: each use has random numbers of its own."""

from __future__ import annotations

import pytest
import torch

from advprop.data.batches.loaders import train_batches
from advprop.data.batches.mixing import Mixing
from advprop.data.batches.sampling import Sampling
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.folders import load_folder
from advprop.data.splits import Key
from advprop.data.view import View
from advprop.randomness import ImageStreams, derive_seed, uniform
from advprop.shapes import Batch

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

POLICIES = [None, "rand-m9-mstd0.5-inc1", "v0", "original", "augmix-m3-w3"]


def draw(streams):
    return uniform(torch.empty(len(streams.keys), 5), streams, purpose="start")


def test_the_first_copy_draws_what_an_image_without_copies_draws():
    plain = draw(ImageStreams.for_batch(1, 2, [3, 4]))
    copies = draw(ImageStreams.for_batch(1, 2, torch.tensor([3, 4, 3]), torch.tensor([0, 0, 1])))
    assert torch.equal(copies[:2], plain)
    assert not torch.equal(copies[2], plain[0])
    expected = torch.Generator().manual_seed(derive_seed(1, 2, 3, "start"))
    assert torch.equal(plain[0], torch.empty(5).uniform_(generator=expected))


def test_copies_and_images_must_be_as_many():
    with pytest.raises(ValueError, match="zip"):
        ImageStreams.for_batch(0, 0, [1, 2], [0])


@pytest.fixture
def split_with(write_images):
    def load(policy, **settings):
        root = write_images({"train/a": 6, "train/b": 6, "val/a": 1, "val/b": 1}, size=(24, 24))
        augmentation = Augmentation(auto_augment=policy, **settings)
        return load_folder(root, View(image_size=16, augmentation=augmentation, seed=5)).train

    return load


@pytest.mark.parametrize("policy", POLICIES)
def test_augmentation_is_a_function_of_seed_epoch_index_and_copy(split_with, policy):
    split = split_with(policy, random_erasing=0.5)
    views = {
        (e, i, c): split.image(i, epoch=e, copy=c) for e in (0, 1) for i in (0, 3) for c in (0, 1)
    }
    assert len({view.numpy().tobytes() for view in views.values()}) == len(views)
    batch = split.images([Key(*key) for key in reversed(views)])
    for view, again in zip(views.values(), batch.flip(0), strict=True):
        assert torch.equal(view, again)
        assert 0 <= view.min() <= view.max() <= 1


@pytest.mark.parametrize("policy", POLICIES)
def test_all_of_it_together_knows_neither_workers_nor_ranks(split_with, policy):
    split = split_with(policy, random_erasing=0.5)
    settings = {
        "batch_size": 4, "seed": 5, "epoch": 1, "num_classes": 2,
        "sampling": Sampling(class_balanced=True, repeats=2), "mixing": Mixing(mixup=1, cutmix=1),
    }  # fmt: skip
    whole = list(train_batches(split, **settings))
    assert len(whole) == 3
    for workers in (1, 2):
        shares = [
            train_batches(
                split, **settings, rank=rank, world_size=2, num_workers=workers, first_batch=1
            )
            for rank in range(2)
        ]
        for batch, *parts in zip(whole[1:], *shares, strict=True):
            for name in ("images", "labels", "indices", "copies"):
                together = torch.cat([getattr(part, name) for part in parts])
                assert torch.equal(getattr(batch, name), together)


def test_a_batch_keeps_what_it_says_when_it_moves():
    batch = Batch(
        images=torch.zeros(2, 3, 4, 4),
        labels=torch.tensor([0, 1]),
        indices=torch.tensor([5, 5]),
        copies=torch.tensor([0, 1]),
        views={"other": torch.ones(2, 3, 4, 4)},
        unreadable=("file: reason",),
    )
    moved = batch.to(torch.device("cpu"), memory_format=torch.channels_last)
    assert moved.copies is batch.copies
    assert moved.unreadable == batch.unreadable
    assert moved.images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(moved.views["other"], batch.views["other"])
