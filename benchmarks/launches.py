"""Kernel launches and waits of a training step by method, on fake CUDA tensors: without a GPU.

    python benchmarks/launches.py [METHOD ...] [--net NAME] [--batch-size B] [--num-steps K]
                                  [--lines N]

A step is the trainer's, in bf16, with an average of the weights, clipping and timm's sgd; the
second is counted. Launches outside passes, forward and backward, are what the package adds to
them: they are told with the lines that ask for most. A `_foreach` operator counts once, however
many kernels it takes, and each operator does of which torch composes one.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "devices"))
from fake_cuda import Findings, environment, is_prepared
from fake_training import NUM_CLASSES, Case, steps
from subjects import method_of

from advprop.config.methods import METHODS
from advprop.models.build import build_model


def step_of(name: str, chosen: argparse.Namespace) -> Findings:
    """What the second step of the method called `name` asks of the device."""
    net = partial(build_model, chosen.net, num_classes=NUM_CLASSES, in_chans=3)
    method = method_of(name, chosen.num_steps)
    case = Case(method=method, net=net, size=64, batch_size=chosen.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        return steps(case, "bf16", Path(folder))[-1]


def show(name: str, found: Findings, num_lines: int) -> None:
    outside, waits = found.outside.total(), found.waits.total()
    print(f"{name:24}{outside:8}{found.launches - outside:10}{waits:7}", flush=True)
    for line, count in found.outside.most_common(num_lines):
        print(f"{count:32}  {line}")
    for (kind, place), count in found.waits.items() if num_lines else ():
        print(f"{count:49}  {kind} in {place}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("methods", nargs="*", metavar="METHOD", default=[*METHODS])
    parser.add_argument("--net", default="resnet50")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--num-steps", type=int, default=1, help="of the attack")
    parser.add_argument("--lines", type=int, default=0, help="that ask for most, of each method")
    chosen = parser.parse_args()
    print(f"{chosen.net:24} outside in passes  waits")
    for name in chosen.methods:
        show(name, step_of(name, chosen), chosen.lines)


if __name__ == "__main__":
    if is_prepared():
        main()
    else:
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, *sys.argv], env=environment(Path(folder)))
        sys.exit(done.returncode)
