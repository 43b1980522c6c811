"""What only a GPU shows, in ten minutes: nine blocks, each within its share of the time.

    python benchmarks/gpu.py [--quick] [--out benchmarks/results-gpu.json]

A line of JSON a row is written as soon as it is measured, so that a machine that goes away takes
nothing with it; a block that has used up its seconds says so and the next one begins. Without CUDA
there are no results; `--quick` then runs the same code on the CPU with tiny nets, to try it.

Nets are ResNet-50 and EfficientNet-B0, 256 images of 224 pixels, bfloat16, channels_last; seconds
are the clock's, with the device done; what is compiled or chosen in the first steps is not counted.
A whole step is `Trainer.train_step`: moving the batch, gradients, a look at the loss, clipping, the
optimiser's step and the average of weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from gpu_runs import attack_gradients, loader_and_step, resumed, store, two_processes
from gpu_steps import compilation, cost_of_steps, launches_and_waits, outside_the_passes
from gpu_subjects import CUDA, TINY, WHOLE, Scale
from measuring import Row
from showing import machine, plain, print_table, told, versions

BLOCKS: dict[str, tuple[Callable[[Scale], Iterator[Row]], float]] = {
    "launches and waits": (launches_and_waits, 60),
    "attack gradients": (attack_gradients, 60),
    "cost of steps": (cost_of_steps, 150),
    "outside the passes": (outside_the_passes, 45),
    "compilation": (compilation, 90),
    "resume": (resumed, 45),
    "loader": (loader_and_step, 45),
    "store": (store, 30),
    "two processes": (two_processes, 60),
}
"""In order, with the seconds that each may take: a row that has begun is finished."""


def measure(quick: bool) -> Iterator[Row]:
    if CUDA:
        yield from all_blocks(TINY if quick else WHOLE)
    else:
        yield Row(what="everything", note="not run here: no GPU")


def all_blocks(scale: Scale) -> Iterator[Row]:
    """Every block's rows; one that fails says so, and the next one begins."""
    for name, (block, seconds) in BLOCKS.items():
        began = time.monotonic()
        try:
            for row in block(scale):
                yield replace(row, case=f"{name}: {row.case}")
                if time.monotonic() - began > seconds:
                    yield Row(what=name, note=f"stopped after its {seconds:g} s")
                    break
        except (RuntimeError, ValueError, OSError, subprocess.TimeoutExpired) as error:
            yield Row(what=name, note=f"failed: {str(error)[:200]}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what only a GPU shows.")
    parser.add_argument("--quick", action="store_true", help="tiny nets, on any machine")
    parser.add_argument("--out", type=Path, help="a file for a line of JSON a row")
    options = parser.parse_args()
    rows = []
    with (options.out or Path("/dev/null")).open("w") as lines:
        print(json.dumps({"machine": machine(), "versions": versions()}), file=lines, flush=True)
        for row in told(all_blocks(TINY) if options.quick else measure(quick=False)):
            print(json.dumps(plain(row)), file=lines, flush=True)
            rows.append(row)
    print_table({"gpu": rows})
    sys.exit(any(row.note.startswith("failed:") for row in rows))


if __name__ == "__main__":
    main()
