"""How long the command and the import take, in processes of their own.

    python benchmarks/start_time.py

Targets: `advprop --help` under 0.5 s; `import torch, advprop` at most 0.1 s over `import torch`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

REPEATS = 9


def seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    commands = {
        "advprop --help": ["-m", "advprop", "--help"],
        "import torch": ["-c", "import torch"],
        "import torch, advprop": ["-c", "import torch, advprop"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(REPEATS + 1):  # in turn, so that a noisy moment hits all; the first warms up
        for name, arguments in commands.items():
            times[name].append(seconds(*arguments))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:24} {median:.3f} s")
    added = medians["import torch, advprop"] - medians["import torch"]
    print(f"{'advprop adds':24} {added:.3f} s")


if __name__ == "__main__":
    main()
