"""All benchmarks, one after another, in one table and `benchmarks/results.json`.

    python benchmarks/run.py [--quick] [--only NAME ...] [--out FILE]

`make bench` and `make bench QUICK=1` call it. Nothing is asserted: each target says pass or
miss, and a benchmark that fails leaves a row that says how (and exit code 1).
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from measuring import Row
from showing import one_thread, print_table, told, write_json

BENCHMARKS = (
    "steps",
    "operators",
    "linearity",
    "step_memory",
    "unused_branches",
    "switching",
    "host",
    "attack_libraries",
    "split_batchnorm",
    "loader",
    "trainer_overhead",
    "recipe_seconds",
    "start_time",
    "demo",
    "gpu",
)
RESULTS = Path(__file__).with_name("results.json")


def rows_of(name: str, quick: bool) -> Iterator[Row]:
    """The rows of a benchmark; one with its error ends them."""
    began = time.monotonic()
    try:
        yield from told(importlib.import_module(name).measure(quick))
    except Exception as error:
        traceback.print_exc()
        yield Row(what="measure", note=f"failed: {error}")
    print(f"{name}: {time.monotonic() - began:.0f} s in all", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what advprop costs.")
    parser.add_argument("--quick", action="store_true", help="few repeats of less: two minutes")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, default=BENCHMARKS)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    began = time.monotonic()
    one_thread()
    rows: dict[str, list[Row]] = {}
    for name in options.only:
        rows[name] = list(rows_of(name, options.quick))
        write_json(options.out, rows, quick=options.quick, began=began)
    print_table(rows)
    sys.exit(any(row.note.startswith("failed:") for found in rows.values() for row in found))


if __name__ == "__main__":
    main()
