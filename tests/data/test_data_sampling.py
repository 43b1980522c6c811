from __future__ import annotations

from collections import Counter

import pytest
import torch

from advprop.data.batches.loaders import train_batches
from advprop.data.batches.mixing import Mixing
from advprop.data.batches.sampling import Sampling, copy_numbers
from advprop.data.splits import ArraySplit

BALANCED = Sampling(class_balanced=True)


def split_of(*class_sizes: int) -> ArraySplit:
    labels = torch.arange(len(class_sizes)).repeat_interleave(torch.tensor(class_sizes))
    pixels = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    return ArraySplit(pixels=pixels, labels=labels)


def epoch_of(split, sampling, *, epoch=0, seed=0, batch_size=10, **settings):
    return list(
        train_batches(
            split, batch_size=batch_size, seed=seed, epoch=epoch, sampling=sampling, **settings
        )
    )


def indices_of(batches) -> list[int]:
    return torch.cat([batch.indices for batch in batches]).tolist()


def uses_of(batches) -> list[tuple[int, int]]:
    copies = torch.cat([batch.copies for batch in batches]).tolist()
    return list(zip(indices_of(batches), copies, strict=True))


def test_without_a_wish_every_image_comes_once_as_its_first_copy():
    split = split_of(20, 10)
    batches = epoch_of(split, Sampling())
    assert indices_of(batches) == split.epoch_order(0, 0).tolist()
    assert not any(copy for _, copy in uses_of(batches))


def test_balanced_classes_come_equally_often_in_every_epoch():
    split = split_of(61, 7, 2)
    for epoch in range(4):
        batches = epoch_of(split, BALANCED, epoch=epoch)
        assert len(batches) == 7
        counts = torch.bincount(torch.cat([batch.labels for batch in batches]), minlength=3)
        assert sorted(counts.tolist()) == [23, 23, 24]
        assert torch.equal(
            split.labels[indices_of(batches)], torch.cat([b.labels for b in batches])
        )


def test_no_image_is_drawn_again_before_all_others_of_its_class():
    split = split_of(31, 7, 2)
    drawn = Counter()
    for epoch in range(8):
        drawn.update(indices_of(epoch_of(split, BALANCED, epoch=epoch)))
        for label in range(3):
            members = (split.labels == label).nonzero().flatten().tolist()
            counts = [drawn[index] for index in members]
            assert max(counts) - min(counts) <= 1


def test_a_balanced_order_is_shuffled_and_a_function_of_seed_and_epoch():
    split = split_of(30, 20)

    def order(**settings):
        return indices_of(epoch_of(split, BALANCED, **settings))

    assert order(epoch=3) == order(epoch=3)
    assert order(epoch=3) != order(epoch=4)
    assert order(epoch=3) != order(epoch=3, seed=1)
    labels = split.labels[order()].tolist()
    assert labels != [0, 1] * 25
    assert labels != [1, 0] * 25


def test_copies_number_the_uses_of_an_image_over_the_whole_epoch():
    assert copy_numbers(torch.tensor([[4, 1, 4], [4, 1, 0]])).tolist() == [[0, 0, 1], [2, 1, 0]]
    uses = uses_of(epoch_of(split_of(61, 7, 2), BALANCED))
    assert len(set(uses)) == len(uses) == 70
    for index in {index for index, _ in uses}:
        numbers = [copy for other, copy in uses if other == index]
        assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize(("repeats", "batch_size"), [(2, 12), (3, 12), (4, 12), (3, 15)])
def test_repeats_are_in_one_batch_and_no_neighbours(repeats, batch_size):
    sampling = Sampling(repeats=repeats)
    batches = epoch_of(split_of(70, 53), sampling, batch_size=batch_size)
    assert len(batches) == 123 // batch_size
    seen = Counter()
    for batch in batches:
        counts = Counter(batch.indices.tolist())
        assert set(counts.values()) == {repeats}
        assert not set(counts) & set(seen)
        seen.update(counts)
        assert set(batch.copies.tolist()) == set(range(repeats))
        firsts, seconds = batch.indices[: batch_size // 2 * 2].view(-1, 2).T
        assert (firsts != seconds).all()
    assert len(set(uses_of(batches))) == len(batches) * batch_size


def test_repeats_see_all_images_in_so_many_epochs():
    sampling = Sampling(repeats=3)
    split = split_of(60)
    epochs = [
        set(indices_of(epoch_of(split, sampling, epoch=epoch, batch_size=12))) for epoch in range(6)
    ]
    assert [len(seen) for seen in epochs] == [20] * 6
    assert set.union(*epochs[:3]) == set.union(*epochs[3:]) == set(range(60))
    assert epochs[0] != epochs[3]


def test_repeats_of_balanced_classes_stay_balanced():
    batches = epoch_of(
        split_of(90, 6), Sampling(class_balanced=True, repeats=2), batch_size=8, epoch=1
    )
    assert torch.bincount(torch.cat([batch.labels for batch in batches])).tolist() == [48, 48]
    assert len(set(uses_of(batches))) == 96


def test_repeats_of_a_split_smaller_than_a_batch_fill_one_batch():
    (batch,) = epoch_of(split_of(4, 3), Sampling(repeats=2), batch_size=64)
    assert len(batch) == 7
    assert max(Counter(batch.indices.tolist()).values()) == 2


@pytest.mark.parametrize(
    "sampling", [BALANCED, Sampling(repeats=2), Sampling(class_balanced=True, repeats=4)]
)
@pytest.mark.parametrize("first", [0, 2])
def test_ranks_and_resumes_share_the_batches_of_one_process(sampling, first):
    split = split_of(70, 9)
    whole = epoch_of(split, sampling, batch_size=16, epoch=5)
    shares = [
        epoch_of(
            split, sampling, batch_size=16, epoch=5, first_batch=first, rank=rank, world_size=2
        )
        for rank in range(2)
    ]
    assert len(whole) - first == len(shares[0]) > 0
    for batch, *parts in zip(whole[first:], *shares, strict=True):
        for name in ("images", "labels", "indices", "copies"):
            together = torch.cat([getattr(part, name) for part in parts])
            assert torch.equal(getattr(batch, name), together)


def test_numbers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="repeats=0: must be at least 1"):
        Sampling(repeats=0)
    with pytest.raises(ValueError, match=r"batch_size=10 cannot be divided by repeats=3.* of 3"):
        epoch_of(split_of(30), Sampling(repeats=3))
    with pytest.raises(ValueError, match="repeats=10 fills a batch of 10 with one image"):
        epoch_of(split_of(30), Sampling(repeats=10), mixing=Mixing(mixup=1.0), num_classes=1)
