"""What is read is what was written an epoch before, whatever happens in between."""

from __future__ import annotations

import dataclasses
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tiny import seeded
from torch import Tensor

from advprop.methods.kept.encoding import Precision
from advprop.methods.kept.store import PerturbationStore

EPSILONS = [1 / 255, 4 / 255, 0.1, 0.2, 1.0]
precisions = pytest.mark.parametrize("precision", ["int8", "float16"])


def store_of(num_images: int = 6, **settings: Any) -> PerturbationStore:
    settings = {"shape": (1, 2, 2), "epsilon": 0.2, **settings}
    return PerturbationStore(num_images=num_images, **settings)


def kept(store: PerturbationStore, indices: list[int], epoch: int | None) -> Tensor:
    values, _ = store.read(torch.tensor(indices), epoch)
    return store.encoding.decoded(values)


def full(*values: float) -> Tensor:
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 2)


# --- values


@precisions
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_values_come_back_within_half_a_step(precision: Precision, epsilon: float) -> None:
    values = epsilon * (2 * torch.rand(1, 3, 50, 50, generator=seeded()) - 1)
    store = store_of(1, shape=(3, 50, 50), epsilon=epsilon, precision=precision)
    store.write(torch.tensor([0]), values, 0)
    half = epsilon / 254 if precision == "int8" else values.abs() * 2.0**-11 + epsilon * 2.0**-25
    error = (kept(store, [0], 1) - values).abs()
    assert (error <= half + 1e-6 * epsilon).all()
    assert error.max() > epsilon / 1e5  # they are rounded


@precisions
@pytest.mark.parametrize("epsilon", EPSILONS)
def test_zero_and_epsilon_are_exact(precision: Precision, epsilon: float) -> None:
    store = store_of(3, epsilon=epsilon, precision=precision)
    values = full(0.0, epsilon, -epsilon)
    store.write(torch.arange(3), values, 0)
    assert torch.equal(kept(store, [0, 1, 2], 1), values)


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_the_smallest_step_is_not_rounded_away(epsilon: float) -> None:
    """From every value that can be kept, a step of epsilon / 127 leads to the next."""
    store = store_of(255, epsilon=epsilon, shape=(1, 1, 1))
    levels = epsilon * torch.arange(-127, 128).view(-1, 1, 1, 1) / 127
    store.write(torch.arange(255), levels, 0)
    stood = kept(store, [*range(255)], 1)
    store.write(torch.arange(255), (stood + epsilon / 127).clamp_max(epsilon), 1)
    moved = kept(store, [*range(255)], 2)
    assert torch.equal(moved[:-1], stood[1:])
    assert len(moved.unique()) == 254


@precisions
def test_epsilon_zero_keeps_zeros(precision: Precision) -> None:
    store = store_of(1, epsilon=0.0, precision=precision)
    store.write(torch.tensor([0]), full(-0.0), 0)
    assert torch.equal(kept(store, [0], 1), torch.zeros(1, 1, 2, 2))


# --- epochs


def test_an_epoch_reads_what_earlier_ones_wrote() -> None:
    store = store_of()
    first = torch.tensor([2, 4])
    assert store.read(first, 0)[1].tolist() == [0, 1]
    store.write(first, full(0.2, -0.2), 0)
    assert store.read(first, 0)[1].tolist() == [0, 1]  # again in epoch 0
    values, new = store.read(torch.tensor([4, 1, 2]), 1)
    assert new.tolist() == [1]
    assert torch.equal(store.encoding.decoded(values), full(-0.2, 0.0, 0.2))
    store.write(torch.tensor([2]), full(-0.2), 5)
    assert torch.equal(kept(store, [2, 4], 5), full(0.2, -0.2))
    assert torch.equal(kept(store, [2, 4], 6), full(-0.2, -0.2))


def test_of_an_image_that_comes_twice_the_last_is_kept() -> None:
    store = store_of()
    store.write(torch.tensor([3, 1, 3]), full(0.2, 0.0, -0.2), 0)
    assert torch.equal(kept(store, [3], 1), full(-0.2))


def test_without_epochs_each_use_counts() -> None:
    store, one = store_of(epsilon=127.0), torch.tensor([1])
    assert store.read(one, None)[1].tolist() == [0]
    for use in range(1, 6):
        store.write(one, full(float(use)), None)
        assert torch.equal(kept(store, [1], None), full(float(use)))
    assert store.read(torch.tensor([0]), None)[1].tolist() == [0]


class Step(NamedTuple):
    """One image in one epoch."""

    epoch: int
    image: int


def plan(epochs: int, images: int, rng: random.Random) -> list[Step]:
    """An epoch sees most images, some of them twice, in an order of its own."""
    return [
        Step(epoch, image)
        for epoch in range(epochs)
        for image in rng.choices(range(images), k=images)
    ]


def trained(store: PerturbationStore, steps: list[Step], start: int = 0) -> Iterator[float]:
    """What each step reads; it writes another number that depends on all before it."""
    for number, (epoch, image) in enumerate(steps[start:], start=start):
        value = kept(store, [image], epoch)[0, 0, 0, 0].item()
        yield value
        after = (17 * value + 7 * image + epoch + number) % 128
        store.write(torch.tensor([image]), full(after), epoch)


@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_is_killed_again_and_again_reads_the_same(seed: int, tmp_path: Path) -> None:
    """Each time it goes on from a checkpoint of the present epoch, or from the end of the last."""
    rng = random.Random(seed)
    steps = plan(5, 6, rng)
    whole = [*trained(store_of(epsilon=127.0), steps)]
    path = tmp_path / "kept" / "perturbations.bin"
    position = 0
    for _ in range(12):
        if position == len(steps):
            break
        running = trained(store_of(epsilon=127.0, path=path), steps, position)
        survived = 0
        for value, _ in zip(running, range(rng.randrange(1, 15)), strict=False):
            assert value == whole[position + survived]
            survived += 1
        reached = position + survived
        # the last checkpoint may be as old as the beginning of the last step's epoch
        epoch = steps[reached - 1].epoch
        position = max(position, rng.randrange(6 * epoch, reached + 1))
    assert [*trained(store_of(epsilon=127.0, path=path), steps, position)] == whole[position:]


def test_going_further_back_is_told_and_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "perturbations.bin"
    images = torch.arange(3)
    store = store_of(3, path=path)
    for epoch in range(4):
        store.write(images, full(*[0.2] * 3), epoch)
    again = store_of(3, path=path)
    assert not len(again.read(images, 3)[1])  # epoch 2's are there
    with pytest.warns(UserWarning, match=r"epoch 3, further back .* those of 3 images .*anew"):
        assert again.read(images, 2)[1].tolist() == [0, 1, 2]
    # what it then writes is what later epochs read
    again.write(images, full(*[-0.2] * 3), 2)
    assert torch.equal(kept(again, [0, 1, 2], 3), full(*[-0.2] * 3))
    again.write(images, full(*[0.0] * 3), 3)
    assert torch.equal(kept(again, [0, 1, 2], 4), full(*[0.0] * 3))
    assert torch.equal(kept(again, [0, 1, 2], 3), full(*[-0.2] * 3))


def test_the_first_epoch_begins_anew_without_a_word() -> None:
    store, images = store_of(3), torch.arange(3)
    for epoch in range(4):
        store.write(images, full(*[0.2] * 3), epoch)
    assert store.read(images, 0)[1].tolist() == [0, 1, 2]


def test_half_a_perturbation_is_none(tmp_path: Path) -> None:
    """Killed while it writes over the older of two: that one is not taken for whole."""

    class Killed:
        def __setitem__(self, *_: object) -> None:
            raise KeyboardInterrupt

    path, one = tmp_path / "perturbations.bin", torch.tensor([0])
    store = store_of(1, path=path)
    for epoch in (0, 1):
        store.write(one, full(0.2), epoch)
    store.__dict__["_entries"] = dataclasses.replace(store._entries, values=Killed())
    with pytest.raises(KeyboardInterrupt):
        store.write(one, full(-0.2), 2)
    again = store_of(1, path=path)
    assert torch.equal(kept(again, [0], 2), full(0.2))
    with pytest.warns(UserWarning, match="further back"):
        again.read(one, 1)


# --- files


def test_processes_share_the_file(tmp_path: Path) -> None:
    path, one = tmp_path / "folder" / "perturbations.bin", torch.tensor([1])
    first, second = store_of(path=path), store_of(path=path)
    first.write(one, full(0.2), 0)
    assert torch.equal(kept(second, [1], 1), full(0.2))
    second.write(one, full(-0.2), 1)
    assert torch.equal(kept(first, [1], 2), full(-0.2))


def test_the_file_takes_all_of_its_room_before_it_is_written(tmp_path: Path) -> None:
    """A page without room that is written to would kill the process."""
    path = tmp_path / "perturbations.bin"
    store = store_of(1000, shape=(3, 64, 64), path=path)
    assert not path.exists()
    store.read(torch.arange(4), 0)
    found = path.stat()
    assert found.st_size == store.num_bytes
    assert 0 <= store.num_bytes - 2 * 1000 * (3 * 64 * 64 + 4 + 16) < 3 * 4096
    assert 512 * found.st_blocks >= store.num_bytes


def test_a_checkpoint_knows_its_file_and_flushes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed = []
    whole = np.memmap.flush
    monkeypatch.setattr(np.memmap, "flush", lambda file: flushed.append(1) or whole(file))
    path = tmp_path / "perturbations.bin"
    store = store_of(path=path)
    store.write(torch.arange(6), full(*[0.2] * 6), 0)
    state = store.state_dict()
    assert flushed
    assert sum(len(str(value)) for value in state.values()) < 400
    again = store_of(path=path)
    again.load_state_dict(state)
    assert torch.equal(kept(again, [5], 1), full(0.2))
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"perturbations\.bin: .* are gone: put the file"):
        store_of(path=path).load_state_dict(state)
    assert not path.exists()
    with pytest.raises(ValueError, match=r'in a file, "perturbations\.bin": prepare .* folder'):
        store_of().load_state_dict(state)


@precisions
def test_in_memory_the_state_holds_all(precision: Precision) -> None:
    store = store_of(precision=precision)
    store.write(torch.tensor([2]), full(0.2), 0)
    state = store.state_dict()
    store.write(torch.tensor([2]), full(-0.2), 1)
    again = store_of(precision=precision)
    again.load_state_dict(state)
    assert torch.equal(kept(again, [2, 0], 7), full(0.2, 0.0))
    assert again.read(torch.tensor([2, 0]), 7)[1].tolist() == [1]


@pytest.mark.parametrize(
    "other",
    [
        {"num_images": 7},
        {"shape": (1, 2, 3)},
        {"epsilon": 0.1},
        {"precision": "float16"},
        {"seed": 1},
    ],
    ids=str,
)
def test_another_store_is_refused(other: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "perturbations.bin"
    store = store_of(path=path)
    state = store.state_dict()
    another = store_of(**other, path=path)
    with pytest.raises(ValueError, match=r"perturbations of .* do not fit those of"):
        another.load_state_dict(state)
    with pytest.raises(ValueError, match=r"a file of .*'seed': 0.*, not of .*another folder"):
        another.read(torch.tensor([0]), 0)


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "perturbations.bin"
    path.write_bytes(b"holiday photos")
    with pytest.raises(ValueError, match="a file of something else, not of"):
        store_of(path=path).read(torch.tensor([0]), 0)
    assert path.read_bytes() == b"holiday photos"


def test_a_file_begun_by_a_process_that_was_killed_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "perturbations.bin"
    for size in (0, store_of().num_bytes):
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(size)
        store_of(path=path).write(torch.tensor([0]), full(0.2), 0)
        assert torch.equal(kept(store_of(path=path), [0], 1), full(0.2))


def test_a_full_disk_is_seen_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing to a mapped file without room would kill the process."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10**9))
    path = tmp_path / "perturbations.bin"
    with pytest.raises(OSError, match=r"grows by 3.01 GB, the disk has 1 GB free: make room"):
        store_of(10_000, shape=(3, 224, 224), path=path).read(torch.tensor([0]), 0)
    assert not path.exists()
    store_of(10, shape=(3, 224, 224), path=path).read(torch.tensor([0]), 0)


# --- damage


def flipped(bit: int) -> Callable[[bytearray], object]:
    """One bit from the end, or, of a negative number, from where the values begin."""

    def change(content: bytearray) -> None:
        place = bit // 8 if bit < 0 else 2 * 4096 + bit // 8
        content[place] ^= 1 << bit % 8

    return change


def zeroed(part: slice) -> Callable[[bytearray], object]:
    return lambda content: content.__setitem__(part, bytes(len(content[part])))


def cut_off(content: bytearray) -> None:
    del content[-9:]


DAMAGE: dict[str, Callable[[bytearray], object]] = {
    "emptied": bytearray.clear,
    "zeroed": zeroed(slice(None)),
    "cut off": cut_off,
    "seals zeroed": zeroed(slice(-6 * 32, None)),
    "half of it zeroed": zeroed(slice(2 * 4096 + 8, None)),
    "values zeroed": zeroed(slice(2 * 4096, 2 * 4096 + 48)),
    **{f"bit {bit} of values": flipped(bit) for bit in (0, 77, 200)},
    **{f"bit {bit} of seals": flipped(bit) for bit in (-1, -90, -777, -1400)},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(damage: str, tmp_path: Path) -> None:
    path, every = tmp_path / "perturbations.bin", torch.arange(6)
    store = store_of(path=path)
    for epoch in (0, 1):
        store.write(every, full(*[0.2 - 0.1 * epoch] * 6), epoch)
    state = store.state_dict()
    content = bytearray(path.read_bytes())
    DAMAGE[damage](content)
    path.write_bytes(content)
    again = store_of(path=path)

    def go_on() -> None:
        again.load_state_dict(state)
        for epoch in (1, 2):  # in this epoch again, or in the next
            again.read(every, epoch)

    with pytest.raises(OSError, match=r"perturbations.bin: damaged, .* put back .* or train again"):
        go_on()


def test_a_file_of_another_time_is_refused(tmp_path: Path) -> None:
    path, every = tmp_path / "perturbations.bin", torch.arange(6)
    store = store_of(path=path)
    store.write(every[:3], full(*[0.2] * 3), 0)
    begun, early = store.state_dict(), path.read_bytes()
    store.write(every[3:], full(*[0.2] * 3), 0)
    state, late = store.state_dict(), path.read_bytes()
    store_of(path=path).load_state_dict(begun)  # killed after a checkpoint: ahead of it
    path.write_bytes(early)
    with pytest.raises(OSError, match="older than the checkpoint"):
        store_of(path=path).load_state_dict(state)
    path.write_bytes(late)
    store_of(path=path).load_state_dict(state)
    path.unlink()
    other = store_of(path=path)
    other.write(every, full(*[0.2] * 6), 0)
    with pytest.raises(OSError, match="another than the checkpoint was written with"):
        store_of(path=path).load_state_dict(state)


def test_a_file_of_the_version_without_checksums_is_taken_over(tmp_path: Path) -> None:
    """And again, where the process was killed meanwhile."""
    path, every = tmp_path / "perturbations.bin", torch.arange(6)
    store = store_of(path=path)
    store.write(every, full(*[0.2] * 6), 3)
    content = bytearray(path.read_bytes())[: store._unsealed]
    content[4080:4096] = b" " * 16
    content[4096 : 4096 + 48] = np.array([[4, 0]] * 6, np.int32).tobytes()
    state = {"identity": store.identity, "file": path.name}
    for more in (0, 6 * 32):
        path.write_bytes(content + bytes(more))
        again = store_of(path=path)
        again.load_state_dict(state)
        assert torch.equal(kept(again, [0, 5], 4), full(0.2, 0.2))
        store_of(path=path).load_state_dict(again.state_dict())


@pytest.mark.parametrize(("index", "named"), [(6, 6), (-1, -1), (900, 900)])
def test_an_image_beyond_the_last_is_refused(index: int, named: int) -> None:
    store = store_of()
    message = f"image {named}: perturbations are kept for 6 images, 0 to 5"
    with pytest.raises(ValueError, match=message):
        store.read(torch.tensor([1, index]), 0)
    with pytest.raises(ValueError, match=message):
        store.write(torch.tensor([1, index]), full(0.0, 0.0), 0)
