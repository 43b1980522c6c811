from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from advprop.data.batches.loaders import train_batches
from advprop.data.batches.mixing import Mixing
from advprop.data.batches.sampling import Sampling
from advprop.data.splits import ArraySplit
from advprop.shapes import unit_range

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

KINDS = [Mixing(mixup=0.8), Mixing(cutmix=1.0), Mixing(mixup=0.8, cutmix=1.0)]


def constant_split(count: int = 40) -> ArraySplit:
    """Image i has the value 5 i everywhere, and its own class."""
    pixels = (5 * torch.arange(count)).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    return ArraySplit(pixels=pixels, labels=torch.arange(count))


def batches_of(mixing, *, split=None, epoch=0, batch_size=8, **settings):
    split = split or constant_split()
    return list(
        train_batches(
            split,
            batch_size=batch_size,
            seed=3,
            epoch=epoch,
            mixing=mixing,
            num_classes=len(split),
            **settings,
        )
    )


@pytest.mark.parametrize("mixing", KINDS)
def test_labels_say_how_much_of_each_neighbour_is_in_an_image(mixing):
    changed = 0
    for batch in batches_of(mixing):
        assert batch.labels.shape == (8, 40)
        assert batch.labels.dtype == torch.float32
        torch.testing.assert_close(batch.labels.sum(dim=1), torch.ones(8))
        pairs = batch.indices.view(-1, 2).repeat_interleave(2, dim=0)
        assert (batch.labels.gather(1, pairs).sum(dim=1) > 0.999).all()
        # the mean over the pixels is that of the two constants, weighted as the labels
        values = torch.arange(40) * 5 / 255
        torch.testing.assert_close(batch.images.mean(dim=(1, 2, 3)), batch.labels @ values)
        changed += int((batch.labels.amax(dim=1) < 1).sum())
    assert changed > 20


def test_mixup_blends_and_cutmix_cuts():
    (mixup, *_), (cutmix, *_) = batches_of(KINDS[0]), batches_of(KINDS[1])
    assert (mixup.images.flatten(1).std(dim=1) < 1e-6).all()
    for image, pair in zip(
        cutmix.images, cutmix.indices.view(-1, 2).repeat_interleave(2, dim=0), strict=True
    ):
        assert set((image * 51).round().unique().tolist()) <= set(pair.tolist())
    assert max(len(image.unique()) for image in cutmix.images) == 2


def test_both_kinds_come_where_both_are_on():
    batches = batches_of(KINDS[2])
    kinds = {len(image.unique()) > 1 for batch in batches for image in batch.images}
    assert kinds == {True, False}


def test_images_stay_in_their_range():
    white = ArraySplit(
        pixels=torch.full((64, 3, 4, 4), 255, dtype=torch.uint8), labels=torch.arange(64)
    )
    for epoch in range(4):
        for batch in batches_of(Mixing(mixup=1.0), split=white, epoch=epoch):
            assert batch.images.max() <= 1
            assert batch.images.min() > 0.999


def test_a_probability_leaves_pairs_as_they_are():
    plain = batches_of(Mixing())
    never = batches_of(Mixing(mixup=1.0, probability=0.0))
    for one, other in zip(plain, never, strict=True):
        assert torch.equal(unit_range(one.images), other.images)
        assert torch.equal(one.labels, other.labels.argmax(dim=1))
        assert one.labels.ndim == 1


@pytest.mark.parametrize("mixing", KINDS)
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(repeats=2)])
def test_mixtures_know_neither_workers_nor_ranks_nor_where_a_run_began(mixing, sampling):
    whole = batches_of(mixing, sampling=sampling)
    settings = {"mixing": mixing, "sampling": sampling, "first_batch": 2}
    shares = [
        batches_of(**settings, rank=rank, world_size=2, num_workers=rank) for rank in range(2)
    ]
    assert len(shares[0]) == 3
    for batch, *parts in zip(whole[2:], *shares, strict=True):
        assert torch.equal(batch.images, torch.cat([part.images for part in parts]))
        assert torch.equal(batch.labels, torch.cat([part.labels for part in parts]))


def test_mixtures_are_a_function_of_seed_and_epoch_and_leave_the_streams_alone():
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    batch = constant_split().batch_of([(0, 4), (0, 7)], constant_split().images([(0, 4), (0, 7)]))
    mixed = [
        Mixing(mixup=1.0)(batch, seed=seed, epoch=epoch, num_classes=40).labels
        for seed, epoch in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert torch.equal(mixed[0], mixed[1])
    assert not torch.equal(mixed[0], mixed[2])
    assert not torch.equal(mixed[0], mixed[3])
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.random.get_state()[1].tolist() == before[2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mixup": -0.1}, r"mixup=-0\.1: an alpha of at least 0"),
        ({"cutmix": float("nan")}, "cutmix=nan: an alpha"),
        ({"probability": 1.5}, r"probability=1\.5: a probability"),
        ({"switch_probability": -1}, "switch_probability=-1"),
    ],
)
def test_wrong_mixing_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": 7}, "each of 1 processes 7: take a batch_size that is a multiple of 2"),
        ({"batch_size": 6, "world_size": 2}, "each of 2 processes 3: .* multiple of 4"),
        ({"split": constant_split(5), "batch_size": 64}, "a batch of 5 .* at most 5"),
    ],
)
def test_shares_without_pairs_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        batches_of(Mixing(mixup=1.0), **settings)


def test_mixing_needs_the_number_of_classes():
    with pytest.raises(ValueError, match="num_classes is missing"):
        train_batches(constant_split(), batch_size=4, seed=0, epoch=0, mixing=Mixing(mixup=1.0))
