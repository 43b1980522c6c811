"""Where the time of `make demo` goes: one of its seeds, in one process on all threads.

    python benchmarks/demo.py [--quick]

By Python's profiler; each part is a share of the whole, without what is a part of its own.
"""

from __future__ import annotations

import cProfile
import pstats
import shlex
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from measuring import Row
from showing import show

from advprop import compare
from advprop.recipes import RECIPES

PARTS: dict[str, tuple[str, ...]] = {
    "attacks, forward and backward passes": ("training/learner.py", "gradients"),
    "reading and augmenting batches": ("data/batches/loaders.py", "__iter__", "train_epoch"),
    "all other of training": ("training/trainer.py", "fit"),
    "tests": ("suites/evaluating.py", "evaluate"),
    "pictures and statistics for the report": ("suites/recording.py", "_record"),
    "report": ("comparisons/gathering.py", "write_comparison_report"),
}
"""By module, function and its caller; the first two are inside the third."""


def seconds_of(stats: pstats.Stats, file: str, function: str, caller: str = "") -> float:
    """Seconds inside the functions of that name in that file, or those for one caller alone."""
    spent = 0.0
    for (path, _, name), entry in stats.stats.items():  # type: ignore[attr-defined]
        if name == function and Path(path).as_posix().endswith(f"/advprop/{file}"):
            calls = entry[4] if caller else {("", 0, ""): entry}
            spent += sum(times[3] for key, times in calls.items() if key[2] == caller)
    return spent


def command_of_the_demo() -> list[str]:
    """The words of `advprop compare ...` as the Makefile has it."""
    ask = ["make", "-n", "-C", str(Path(__file__).parents[1]), "demo"]
    told = subprocess.run(ask, check=True, capture_output=True, text=True)
    return shlex.split(told.stdout[told.stdout.index("compare") :])


def follow(word: str, words: list[str]) -> list[str]:
    """What follows `word`, each time it is there."""
    return [after for before, after in pairwise(words) if before == word]


def measure(quick: bool) -> Iterator[Row]:
    if quick:
        yield Row(what="make demo, one seed", note="not in the quick form: half a minute")
        return
    demo = command_of_the_demo()
    config = RECIPES[follow("compare", demo)[0]].build()
    recorder, began = cProfile.Profile(), time.perf_counter()
    with TemporaryDirectory() as folder:
        recorder.runcall(
            compare,
            config,
            folder,
            methods=follow("--methods", demo)[0].split(","),
            num_seeds=1,
            overrides=follow("--set", demo),
        )
    whole = time.perf_counter() - began
    yield Row(what="make demo, one seed, one process", value=whole, unit="s", seconds=whole)
    stats = pstats.Stats(recorder)
    parts = {name: seconds_of(stats, *names) for name, names in PARTS.items()}
    inside, batches, training, *_ = parts
    parts[training] -= parts[inside] + parts[batches]
    parts["all other"] = whole - sum(parts.values())
    for name, seconds in parts.items():
        yield Row(what=name, value=seconds / whole, against="the whole", seconds=seconds)


if __name__ == "__main__":
    show(measure)
