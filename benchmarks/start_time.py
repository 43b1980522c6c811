"""How long the command and the import take, in processes of their own.

    python benchmarks/start_time.py [--quick]

Targets: `advprop --help` 0.5 s; `import torch, advprop` 0.1 s over `import torch`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

from measuring import Row, interleaved, row_of
from showing import show

HELP, TORCH, BOTH = "advprop --help", "import torch", "import torch, advprop"
COMMANDS = {HELP: ("-m", "advprop", "--help"), TORCH: ("-c", TORCH), BOTH: ("-c", BOTH)}


def run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)


def measure(quick: bool) -> Iterator[Row]:
    actions = {name: partial(run, *arguments) for name, arguments in COMMANDS.items()}
    times = interleaved(actions, repeats=1 if quick else 7, clock=time.perf_counter)
    yield times.absolute(HELP, target=0.5)
    yield times.absolute(TORCH)
    pairs = zip(times.seconds[BOTH], times.seconds[TORCH], strict=True)
    added = [both - alone for both, alone in pairs]
    what = "import advprop"
    yield row_of(
        what, added, unit="s", against=f"over {TORCH}", target=0.1, seconds=times.spent[BOTH]
    )


if __name__ == "__main__":
    show(measure)
