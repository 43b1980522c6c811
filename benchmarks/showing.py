"""A benchmark's rows as a table, and as JSON with the machine they come from."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from measuring import RATIO, Measure, Row
from rich.console import Console
from rich.markup import escape
from rich.table import Table

PACKAGES = ("advprop", "torch", "torchvision", "timm", "accelerate", "foolbox", "torchattacks")


def show(measure: Measure) -> None:
    """Run one benchmark from the command line; `--quick` asks for few repeats."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few repeats of less")
    quick = parser.parse_args().quick
    one_thread()
    print_table({Path(sys.argv[0]).stem: list(told(measure(quick)))})


def one_thread() -> None:
    """Ratios are those of one thread, in float32; the random numbers are the same each time."""
    torch.set_num_threads(1)
    torch.manual_seed(0)


def told(rows: Iterable[Row]) -> Iterator[Row]:
    """The same rows, told on stderr as they come."""
    for row in rows:
        name = ": ".join(filter(None, (row.case, row.what)))
        figure = row.note if row.value is None else f"{value(row)} {row.verdict}".rstrip()
        print(f"{name}: {figure}", file=sys.stderr, flush=True)
        yield row


def print_table(rows: Mapping[str, Iterable[Row]]) -> None:
    """One table for all benchmarks, by their names, and the cases in each."""
    table = Table(title=f"one thread, torch {torch.__version__}", title_justify="left")
    for name in ("", "value", "middle half", "against", "target", "seconds"):
        is_text = name in ("", "against")
        table.add_column(name, justify="left" if is_text else "right", no_wrap=True)
    for benchmark, found in rows.items():
        table.add_section()
        case = None
        for row in found:
            if row.case != case:
                table.add_row(f"[bold]{escape(': '.join(filter(None, (benchmark, row.case))))}")
                case = row.case
            half = "" if row.low is None else f"{number(row.low)} to {number(row.high)}"
            target = f"{number(row.target)} {row.verdict}".rstrip()
            figures = (value(row), half, row.against, target, f"{row.seconds:.1f}")
            table.add_row(f"  {escape(row.what)}", *map(escape, figures))
    # a narrow terminal folds the lines, no figures
    Console(width=max(160, Console().width)).print(table)


def value(row: Row) -> str:
    """The figure with its unit, or why there is none."""
    if row.value is None:
        return textwrap.shorten(row.note, 32, placeholder="...")
    note = f" ({row.note})" if row.note else ""
    unit = row.unit if row.unit == RATIO else f" {row.unit}"
    return f"{number(row.value)}{unit}{note}"


def number(figure: float | None) -> str:
    """Three decimals of a ratio, fewer of what is large."""
    if figure is None:
        return ""
    return f"{figure:.3f}" if abs(figure) < 10 else f"{figure:,.1f}"


def write_json(path: Path, rows: Mapping[str, Iterable[Row]], *, quick: bool, began: float) -> None:
    """All rows, and what one must know to compare them with others.

    Rows of other benchmarks that `path` has from the same machine stay, with their own date.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    result = {
        "date": date,
        "command": " ".join(["python", *sys.argv]),
        "quick": quick,
        "seconds": round(time.monotonic() - began, 1),
        "versions": {"python": platform.python_version(), **versions()},
        "machine": machine(),
        "rows": _others(path, quick, tuple(rows))
        + [
            {"benchmark": name, "date": date, **plain(row)}
            for name, found in rows.items()
            for row in found
        ],
    }
    path.write_text(json.dumps(result, indent=1) + "\n")


def _others(path: Path, quick: bool, measured: tuple[str, ...]) -> list[dict[str, Any]]:
    before = json.loads(path.read_text()) if path.is_file() else {}
    if (before.get("machine"), before.get("quick")) != (machine(), quick):
        return []
    return [row for row in before["rows"] if row["benchmark"] not in measured]


def plain(row: Row) -> dict[str, Any]:
    """The row with five digits, which is more than any repeat agrees on."""
    rounded = {
        name: float(f"{entry:.5g}") if isinstance(entry, float) else entry
        for name, entry in asdict(row).items()
    }
    return {**rounded, "verdict": row.verdict}


def versions() -> dict[str, str | None]:
    """Of the packages that matter; None where one is not installed."""
    found: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict[str, Any]:
    """Processor, threads and accelerator."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "platform": platform.platform(),
    }


def _cpu_model() -> str:
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text().splitlines() if listing.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
