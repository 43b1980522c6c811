"""Processes that load images: their errors, and their end."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
import traceback
from functools import partial

import pytest
import torch

from advprop.data.batches.loaders import train_batches
from advprop.data.batches.mixing import Mixing
from advprop.data.batches.workers import Assembly, worker_deaths_explained
from advprop.data.preprocessing import Augmentation
from advprop.data.sets.folders import load_folder
from advprop.data.splits import ImageSplit
from advprop.data.view import View
from advprop.shapes import Batch

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


class Picky(Exception):  # noqa: N818
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


class PickyValueError(Picky, ValueError):
    pass


class FaultySplit(ImageSplit):
    """Does something else instead of reading images."""

    def __init__(self, action) -> None:
        self.labels = torch.zeros(8, dtype=torch.int64)
        self.action = action

    def images(self, keys):
        self.action()
        return torch.zeros(len(keys), 1, 1, 1)


def throw(error):
    raise error


def read_all(action, **settings):
    return list(
        train_batches(FaultySplit(action), batch_size=2, seed=0, epoch=0, num_workers=1, **settings)
    )


@pytest.mark.parametrize(
    ("raised", "kind", "message"),
    [
        (ValueError("a bad value"), ValueError, "a bad value"),
        (FileNotFoundError(2, "gone", "file"), OSError, r"\[Errno 2\] gone: 'file'"),
        (ImportError("no package"), ImportError, "no package"),
        (MemoryError(), OSError, "out of memory .*fewer training.num_workers"),
        (PickyValueError(1, 2), ValueError, "1 and 2"),
        (KeyError("name"), OSError, r"failed \(KeyError: 'name'\); training.num_workers=0 shows"),
        (Picky(1, 2), OSError, r"failed \(Picky: 1 and 2\)"),
    ],
)
def test_every_error_of_a_worker_is_one_clear_line(raised, kind, message):
    with pytest.raises(kind) as error:
        read_all(partial(throw, raised))
    assert type(error.value) is kind
    error.match(message)
    assert "\n" not in str(error.value)
    # the place is there for those who look for it
    assert "in throw" in "".join(traceback.format_exception(error.value))


def test_a_worker_that_is_killed_is_explained():
    with pytest.raises(OSError, match=r"has died .*fewer training.num_workers"):
        read_all(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_death_is_noticed_soon_though_its_signal_is_lost(monkeypatch):
    """An error that torch raises from its signal handler is lost in a destructor, for instance."""
    from torch.utils.data._utils import signal_handling

    monkeypatch.setattr(signal_handling, "_error_if_any_worker_fails", lambda: None)
    monkeypatch.setattr("advprop.data.batches.workers._WAIT_AT_MOST_SECONDS", 90)
    monkeypatch.setattr("advprop.data.batches.workers._LOOK_AFTER_SECONDS", 1)
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"has died .*fewer training.num_workers"):
        read_all(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert time.monotonic() - begun < 60


def test_a_slow_batch_is_waited_for(monkeypatch):
    monkeypatch.setattr("advprop.data.batches.workers._LOOK_AFTER_SECONDS", 0.05)
    assert len(read_all(lambda: time.sleep(0.3))) == 4


def test_shared_memory_that_is_full_is_explained(monkeypatch):
    """torch moves batches there in a thread of the worker's, whose errors nobody sees."""

    def full(batch):
        raise RuntimeError("unable to allocate shared memory(shm): No space left on device (28)")

    monkeypatch.setattr("advprop.shapes.Batch.share_memory", full)
    with pytest.raises(OSError, match=r"/dev/shm, \d+ MB; unable .*--shm-size.*num_workers \(0"):
        read_all(lambda: None)


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="mounts")
def test_a_small_dev_shm_is_explained():
    reading = """
        import torch
        from advprop.data.batches.loaders import train_batches
        from advprop.data.splits import ImageSplit

        class Large(ImageSplit):
            labels = torch.zeros(64, dtype=torch.int64)

            def images(self, keys):
                return torch.zeros(len(keys), 3, 512, 512)

        try:
            list(train_batches(Large(), batch_size=2, seed=0, epoch=0, num_workers=2))
        except OSError as error:
            print(error)
    """
    may_not_mount = 77
    small = f'mount -t tmpfs -o size=4m tmpfs /dev/shm || exit {may_not_mount}; exec "$@"'
    ended = subprocess.run(
        ["unshare", "-m", "sh", "-c", small, "sh", sys.executable, "-c", textwrap.dedent(reading)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if ended.returncode == may_not_mount or ended.stderr.startswith("unshare: "):
        pytest.skip(f"disks cannot be mounted here: {ended.stderr}")
    assert "no room for a batch in shared memory (/dev/shm, 4 MB" in ended.stdout, ended.stderr


def test_a_worker_that_hangs_is_explained(monkeypatch):
    monkeypatch.setattr("advprop.data.batches.workers._WAIT_AT_MOST_SECONDS", 1)
    with pytest.raises(OSError, match=r"no images for .*a process that loads them hangs"):
        read_all(lambda: time.sleep(60))


def test_every_tensor_of_a_batch_is_shared():
    """What is not, torch would move later, in its thread."""
    images = torch.zeros(2, 1, 2, 2)
    numbers = torch.zeros(2, dtype=torch.int64)
    batch = Batch(
        images=images,
        labels=numbers.clone(),
        indices=numbers.clone(),
        copies=numbers.clone(),
        views={"noise": images.clone()},
        frames=torch.zeros(2, 2, 3),
    ).share_memory()
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 5
    assert all(tensor.is_shared() for tensor in [*tensors, *batch.views.values()])


def test_other_runtime_errors_are_no_deaths():
    with pytest.raises(RuntimeError, match=r"^CUDA error"), worker_deaths_explained():
        raise RuntimeError("CUDA error")


def test_what_no_process_can_be_handed_is_refused(monkeypatch):
    def refuse(self):
        raise pickle.PicklingError("Can't pickle this")

    monkeypatch.setattr("torch.utils.data.DataLoader.__iter__", refuse)
    with pytest.raises(ValueError, match=r"cannot be handed .*training\.num_workers=0"):
        read_all(lambda: None)


def test_a_used_assembly_can_be_handed_to_a_new_interpreter(write_images):
    root = write_images({"train/a": 3, "train/b": 3, "val/a": 1, "val/b": 1}, size=(20, 20))
    augmentation = Augmentation(auto_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5)
    split = load_folder(root, View(image_size=8, augmentation=augmentation)).train
    mix = partial(Mixing(mixup=1.0), seed=0, epoch=0, num_classes=2)
    assembly, keys = Assembly(split=split, finish=(mix,)), [(0, 1), (0, 4)]
    batch = assembly.__getitems__(keys)
    other = pickle.loads(pickle.dumps(assembly)).__getitems__(keys)
    assert torch.equal(batch.images, other.images)
    assert torch.equal(batch.labels, other.labels)


def test_pinned_memory_changes_no_batch():
    batches = read_all(lambda: None, pin_memory=True)
    plain = read_all(lambda: None)
    assert [b.indices.tolist() for b in batches] == [b.indices.tolist() for b in plain]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_workers_end_with_a_parent_that_is_killed():
    # one that reads for minutes, as from storage that hangs, asks for its parent too late
    parent = """
        import os, threading, time, torch
        from advprop.data.batches.loaders import train_batches
        from advprop.data.splits import ImageSplit

        class Hanging(ImageSplit):
            labels = torch.zeros(64, dtype=torch.int64)

            def images(self, keys):
                print(os.getpid(), flush=True)
                time.sleep(300)

        next(iter(train_batches(Hanging(), batch_size=2, seed=0, epoch=0, num_workers=2)))
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(parent)], stdout=subprocess.PIPE, text=True
    )
    with process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        assert all(map(runs, workers))
        process.kill()
    deadline = time.monotonic() + 60
    while any(map(runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    left = [worker for worker in workers if runs(worker)]
    for worker in left:
        os.kill(worker, signal.SIGKILL)
    assert not left


def runs(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
