"""What a step of each method needs in memory over vanilla's, at the same batch.

    python benchmarks/step_memory.py [--quick]

ResNet-18, 64 images of 128 pixels, one attack step (more of them hold nothing more). Each method
runs in a process of its own; counted is the peak of resident memory during the step over what was
resident before, when model and images were there but no gradients. Linux only: the kernel's own
count (`VmHWM`), reset before the step, with every larger tensor in pages of its own, so that what
the C library keeps for later is not counted. AdvProp's separate passes hold one graph at a time: at
most 1.10 of vanilla; the joint form, one pass over both kinds of images, is there for comparison.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from measuring import Row, row_of
from showing import one_thread, show
from subjects import Subject, method_of

from advprop.config.methods import METHODS
from advprop.methods.base import Method

PROCESS = Path("/proc/self")
TARGET = 1.10
LARGE = Subject(architecture="resnet18", image_size=128, batch_size=64)


def resident(entry: str) -> float:
    """Megabytes of this process by `VmRSS` or, since the last reset, `VmHWM`."""
    for row in (PROCESS / "status").read_text().splitlines():
        if row.startswith(f"{entry}:"):
            return float(row.split()[1]) / 1024
    raise KeyError(entry)


def peak_of_step(subject: Subject, method: Method) -> float:
    """Megabytes that a step takes beyond what is there before it."""
    one_thread()
    step = subject.step(method)
    replace(subject, batch_size=2).step(method)()  # loads the libraries
    before = resident("VmRSS")
    (PROCESS / "clear_refs").write_text("5")  # resets the peak
    step()
    return resident("VmHWM") - before


def in_a_process(method: Method) -> float:
    """The same, in a process that is new."""
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as pool:
        return pool.submit(peak_of_step, LARGE, method).result()


def methods(*, all_of_them: bool) -> dict[str, Method]:
    """By the rows' names, vanilla first."""
    advprop: Any = method_of("advprop", 1)
    found: dict[str, Method] = {
        "vanilla": method_of("vanilla"),
        "advprop, separate passes": replace(advprop, form="separate"),
    }
    if all_of_them:
        found["advprop, joint"] = replace(advprop, form="joint")
        found |= {
            name: method_of(name, 1) for name in METHODS if name not in ("vanilla", "advprop")
        }
    return found


def measure(quick: bool) -> Iterator[Row]:
    if not (PROCESS / "clear_refs").exists():
        yield Row(what="peak memory of a step", note="needs Linux: not run")
        return
    repeats, case = 1 if quick else 3, str(LARGE)
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)  # for the processes to come, not for this one
    vanilla: list[float] = []
    for name, method in methods(all_of_them=not quick).items():
        began, peaks = time.perf_counter(), []
        for _ in range(repeats):
            try:
                peaks.append(in_a_process(method))
            except (ValueError, TypeError, KeyError) as error:
                yield Row(what=name, case=case, note=f"not run: {error}")
                break
        else:
            seconds = time.perf_counter() - began
            if not vanilla:
                vanilla = peaks
                yield row_of(name, peaks, case=case, unit="MB", seconds=seconds)
                continue
            ratios = [mine / plain for mine, plain in zip(peaks, vanilla, strict=True)]
            target = TARGET if name == "advprop, separate passes" else None
            yield row_of(name, ratios, case=case, against="vanilla", target=target, seconds=seconds)


if __name__ == "__main__":
    show(measure)
