"""Seed, restore and rewind the global random streams of Python, numpy and torch.

Libraries without generator arguments draw from them: augmentation, dropout and drop path.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from advprop.randomness.streams import derive_seed


def mark_dropout(device: torch.device) -> Callable[[], None]:
    """Record the states of torch's global streams on the CPU and `device`.

    Calling the result restores them, so that dropout draws the same masks again. It does not wait
    for the device, since a generator's state is on the host.
    """
    host = torch.get_rng_state()
    module = torch.get_device_module(device) if device.type not in ("cpu", "meta") else None
    # torch.mps has one device, and its functions take no device argument
    of_device = () if device.type == "mps" else (device,)
    state = None if module is None else module.get_rng_state(*of_device)

    def redraw() -> None:
        torch.set_rng_state(host)
        if module is not None:
            module.set_rng_state(state, *of_device)

    return redraw


@contextmanager
def random_streams(*parts: int | str) -> Iterator[None]:
    """Seed the global streams of `random`, numpy and torch inside, and restore them after.

    It serves libraries without generator arguments (augmentation, dropout). The stream of the
    current CUDA device is seeded too if CUDA is initialised.
    """
    with kept_streams():
        seed_streams(*parts)
        yield


@contextmanager
def kept_streams() -> Iterator[None]:
    """Restore the global streams after calls of `seed_streams` inside.

    Use it once for many images: saving numpy's state takes as long as preparing a small image.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(_cuda_devices()):
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def seed_streams(*parts: int | str) -> None:
    """Seed the global streams; only to be called inside `kept_streams`, which restores them."""
    seed = derive_seed(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if _cuda_devices():
        torch.cuda.manual_seed(seed)


def _cuda_devices() -> list[int]:
    # not all devices: a process uses one, and a forked loader worker must not initialise CUDA
    return [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
