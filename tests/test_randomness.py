"""Randomness as a function."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import kstest
from tiny import Operations
from torch import Tensor

from advprop.randomness import (
    ImageStreams,
    derive_seed,
    generator_for,
    hashed,
    normal,
    random_streams,
    uniform,
)


def test_seed_depends_on_every_part_and_their_order() -> None:
    parts = (0, 1, 11, 2**40, "order", "1", "")
    keys = [key for count in range(4) for key in itertools.product(parts, repeat=count)]
    seeds = {derive_seed(*key) for key in keys}
    assert len(seeds) == len(keys) == 1 + 7 + 49 + 343
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_the_same_in_every_version() -> None:
    # runs that were started by an earlier version are resumed by a later one
    assert derive_seed(0, 1, "order") == 5305612505841276476
    assert derive_seed(1, "2") != derive_seed("1", 2) != derive_seed(12)


def test_generator_for() -> None:
    first, second = (torch.rand(3, generator=generator_for(0, "order")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(3, generator=generator_for(1, "order")))


@pytest.mark.parametrize("draw", [normal, uniform])
@pytest.mark.parametrize(
    "chosen", [[0], [7], [1, 0], [3, 5, 4], [7, 6, 5, 4, 3, 2, 1, 0], [2, 2]], ids=str
)
def test_a_row_depends_on_its_key_alone(draw: Callable[..., Tensor], chosen: list[int]) -> None:
    whole = draw(torch.empty(8, 3, 5), ImageStreams.for_batch(7, 2, range(8)), purpose="start")
    streams = ImageStreams.for_batch(7, 2, torch.tensor(chosen))
    assert torch.equal(
        draw(torch.empty(len(chosen), 3, 5), streams, purpose="start"), whole[chosen]
    )


def test_streams_differ_by_seed_epoch_image_and_purpose() -> None:
    def draw(seed: int, epoch: int, index: int, purpose: str) -> tuple[float, ...]:
        streams = ImageStreams.for_batch(seed, epoch, [index])
        return tuple(streams.draw((1, 4), purpose, normal=False).flatten().tolist())

    draws = {
        draw(seed, epoch, index, purpose)
        for seed in range(3)
        for epoch in range(3)
        for index in range(3)
        for purpose in ("start", "target")
    }
    assert len(draws) == 54


def test_a_stream_for_each_image() -> None:
    with pytest.raises(ValueError, match="3 random streams for 4 images"):
        uniform(torch.empty(4, 2), ImageStreams.for_batch(0, 0, range(3)), purpose="start")


@pytest.mark.parametrize("streams", [True, False])
def test_distributions(streams: bool) -> None:
    like, count = torch.empty(2000, 5), 10_000
    randomness = ImageStreams.for_batch(0, 0, range(2000)) if streams else generator_for(0)
    flat = uniform(like, randomness, purpose="a")
    assert flat.min() >= 0
    assert flat.max() < 1
    assert abs(flat.mean() - 0.5) < 4 * (1 / 12 / count) ** 0.5
    bell = normal(like, randomness, purpose="b")
    assert abs(bell.mean()) < 4 / count**0.5
    assert abs(bell.var() - 1) < 4 * (2 / count) ** 0.5


def hashed_by_hand(seed: int, count: int) -> list[float]:
    """The documented arithmetic, in Python's integers."""

    def mix(word: int, *factors: int) -> int:
        for factor in factors:
            word = (word ^ (word >> 32)) * factor % 2**64
        return word

    golden, *both = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
    found = []
    for number in range(1, count // 2 + 1):
        word = mix((mix(seed, *both) | 1) * mix(number * golden % 2**64, *both) % 2**64, both[0])
        found += [word % 2**32, word >> 32]
    # halves are signed: 0 is in the middle
    return [(half ^ 2**31) // 2**8 / 2**24 for half in found]


@pytest.mark.parametrize("seed", [0, 1, 7, 2**63 - 1])
def test_the_hash_is_what_is_documented_in_every_version(seed: int) -> None:
    # a resumed run meets the same numbers
    found = hashed(torch.tensor([seed]), 1000, normal=False)
    assert found.tolist() == [hashed_by_hand(seed, 1000)]


SEEDS = torch.tensor([*range(64), *(derive_seed(0, image) for image in range(64))])


@pytest.mark.parametrize("chosen", [[0], [100, 3], [5, 5], list(range(127, -1, -1))], ids=str)
@pytest.mark.parametrize("is_normal", [True, False])
def test_a_row_of_the_hash_depends_on_its_seed_alone(is_normal: bool, chosen: list[int]) -> None:
    whole = hashed(SEEDS, 15, normal=is_normal)
    assert whole.dtype == torch.float32
    assert torch.equal(hashed(SEEDS[chosen], 15, normal=is_normal), whole[chosen])
    assert torch.equal(hashed(SEEDS, 8, normal=is_normal), whole[:, :8])


@pytest.mark.parametrize("is_normal", [True, False])
def test_distributions_of_the_hash(is_normal: bool) -> None:
    values = hashed(SEEDS, 2001, normal=is_normal)
    flat = values.flatten().double()
    mean, variance = (0.0, 1.0) if is_normal else (0.5, 1 / 12)
    fourth = 3.0 if is_normal else 1.8
    assert abs(flat.mean() - mean) < 4 * (variance / len(flat)) ** 0.5
    assert abs(flat.var() / variance - 1) < 4 * ((fourth - 1) / len(flat)) ** 0.5
    if not is_normal:
        assert flat.min() >= 0
        assert flat.max() < 1
    # no set of numbers is further from its distribution than one in ten thousand is by chance
    for some in (flat, *values[::16].double(), *values.T[::250].double()):
        assert kstest(some, "norm" if is_normal else "uniform").pvalue > 1e-4


def test_images_and_neighbours_of_the_hash_are_not_related() -> None:
    values = hashed(SEEDS, 4000, normal=False) - 0.5
    between = torch.corrcoef(values).fill_diagonal_(0)
    assert between.abs().max() < 5.5 / 4000**0.5  # of 8,128 pairs
    for lag in (1, 2, 3, 64):
        product = 12 * values[:, :-lag] * values[:, lag:]
        assert abs(product.mean()) < 4 / product.numel() ** 0.5
    bits = ((values + 0.5) * 2**24).long()[..., None] >> torch.arange(24) & 1
    share = bits.double().mean((0, 1))
    assert (share - 0.5).abs().max() < 4 * 0.5 / values.numel() ** 0.5


def test_numbers_of_images_differ_by_seed_epoch_image_and_copy() -> None:
    streams = [
        ImageStreams.for_batch(seed, epoch, [index], [copy])
        for seed, epoch, index, copy in itertools.product(
            range(3), range(3), (0, 1, 2**30), range(3)
        )
    ]
    assert len({streams._seeds.item() for streams in streams}) == 81


def test_devices_other_than_the_cpu_draw_by_the_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = ImageStreams.for_batch(7, 2, [3, 9, 3])
    # no other device is here
    monkeypatch.setattr(
        "advprop.randomness.streams.hashed",
        lambda *of, normal, device: hashed(*of, normal=normal),
    )
    first, other, same = (
        streams.draw((3, 2, 5), purpose, normal=False, device="cuda") for purpose in ("a", "b", "a")
    )
    assert torch.equal(first, same)
    assert torch.equal(first[0], first[2])
    assert not torch.isin(first[:2], other).any()
    assert first[:2].unique().numel() == 20
    with Operations() as called:
        ImageStreams.for_batch(7, 2, range(256)).draw((256, 3), "a", normal=True, device="cuda")
    assert len(called.names) < 64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_meets_the_same_numbers(dtype: torch.dtype) -> None:
    like = torch.empty(3, 4)
    expected = normal(like, generator_for(0), purpose="start")
    drawn = normal(like.to(dtype), generator_for(0), purpose="start")
    assert drawn.dtype == dtype
    assert torch.equal(drawn, expected.to(dtype))


def test_without_generator_torchs_global_stream_is_drawn_from() -> None:
    torch.manual_seed(3)
    first = uniform(torch.empty(4), None, purpose="start")
    torch.manual_seed(3)
    assert torch.equal(first, torch.rand(4))


def draw_all() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_random_streams_are_repeatable_and_leave_no_trace() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    untouched = [draw_all(), draw_all()]
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    before = draw_all()
    with random_streams(1, 2, "augmentation"):
        inside = draw_all()
        with random_streams(5):
            nested = draw_all()
        following = draw_all()
    after = draw_all()
    assert [before, after] == untouched
    with random_streams(1, 2, "augmentation"):
        assert draw_all() == inside
        assert draw_all() == following
    with random_streams(1, 3, "augmentation"):
        assert all(a != b for a, b in zip(draw_all(), inside, strict=True))
    assert all(a != b for a, b in zip(nested, inside, strict=True))


def test_random_streams_are_restored_after_an_exception() -> None:
    torch.manual_seed(0)
    np_state, state = np.random.get_state()[1].tolist(), torch.get_rng_state()
    python_state = random.getstate()

    def fail() -> None:
        with random_streams(0):
            draw_all()
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
    assert np.random.get_state()[1].tolist() == np_state
    assert random.getstate() == python_state


def test_random_streams_initialise_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    # a forked loader worker that touches CUDA dies; a rank that touches all devices wastes memory
    def touched(*_: object) -> None:
        raise AssertionError("a device was touched")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "get_rng_state", touched)
    monkeypatch.setattr(torch.cuda, "_lazy_init", touched)
    with random_streams(0):
        first = torch.rand(())
    with random_streams(0):
        assert torch.equal(torch.rand(()), first)
