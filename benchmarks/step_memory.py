"""What a step of each method needs in memory over vanilla's, at the same batch.

    python benchmarks/step_memory.py [--quick]

One attack step (more of them hold nothing more), each method in a process of its own; counted is
the peak of resident memory during the step over what was resident before, when model and images
were there but no gradients. Linux only: the kernel's own count (`VmHWM`), reset before the step,
with every larger tensor in pages of its own, so that what the C library keeps for later is not
counted. AdvProp's separate passes hold one graph at a time, and the gradients of the first pass
beside that of the second: at most 1.10 of vanilla. No method of two passes can hold less than
vanilla's own pass twice, its gradients added up, which is measured too. The joint form, one pass
over both kinds of images, and the other methods, on ResNet-18, are there for comparison.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from measuring import Row, row_of
from showing import one_thread, show
from subjects import EFFICIENTNET_B0, RESNET18, Subject, method_of
from torch import nn

from advprop.config.methods import METHODS
from advprop.methods.base import Method
from advprop.methods.step import Context, StepMetrics
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch

PROCESS = Path("/proc/self")
TARGET = 1.10
SEPARATE = "advprop, separate passes"


class Twice(Vanilla):
    """Two passes whose gradients are added up, as gradient accumulation does it."""

    def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
        """Vanilla's, twice."""
        super().step(model, batch, context)
        return super().step(model, batch, context)


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
    subject.quick().step(copy.deepcopy(method))()  # loads the libraries
    before = resident("VmRSS")
    (PROCESS / "clear_refs").write_text("5")  # resets the peak
    step()
    return resident("VmHWM") - before


def in_a_process(subject: Subject, method: Method) -> float:
    """The same, in a process that is new."""
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawning) as pool:
        return pool.submit(peak_of_step, subject, method).result()


def methods(*, all_of_them: bool) -> dict[str, Method]:
    """By the rows' names, vanilla first."""
    advprop: Any = method_of("advprop", 1)
    found: dict[str, Method] = {
        "vanilla": method_of("vanilla"),
        SEPARATE: replace(advprop, form="separate"),
        "vanilla, two passes added up": Twice(),
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
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(2**16)  # for the processes to come, not for this one
    for subject in (RESNET18,) if quick else (RESNET18, EFFICIENTNET_B0):
        whole = not quick and subject is RESNET18
        yield from against_vanilla(subject.quick(32) if quick else subject, all_of_them=whole)


def against_vanilla(subject: Subject, *, all_of_them: bool) -> Iterator[Row]:
    """A row for each method; the target's two are measured twice."""
    vanilla = 0.0
    for name, method in methods(all_of_them=all_of_them).items():
        began, case = time.perf_counter(), str(subject)
        try:
            count = 2 if name in ("vanilla", SEPARATE) else 1
            peaks = [in_a_process(subject, method) for _ in range(count)]
        except (ValueError, TypeError, KeyError) as error:
            yield Row(what=name, case=case, note=f"not run: {error}")
            continue
        seconds = time.perf_counter() - began
        if name == "vanilla":
            vanilla = median(peaks)
            yield row_of(name, peaks, case=case, unit="MB", seconds=seconds)
            continue
        ratios = [peak / vanilla for peak in peaks]
        target = TARGET if name == SEPARATE else None
        yield row_of(name, ratios, case=case, against="vanilla", target=target, seconds=seconds)


if __name__ == "__main__":
    show(measure)
