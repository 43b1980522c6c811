"""Does a step's time grow by the same for each attack step, and for each image?

    python benchmarks/linearity.py [--quick]

AdvProp with K = 0, 1, 3 and 5 attack steps, and with K = 1 on batches of 8 to 64 images, ResNet-18.
A line is fitted to the medians; its residuals are shares of the time fitted. A cost that hides
(growth with K squared, a price for each call) shows as a residual, or as a line that misses the
origin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from measuring import Row, Times, interleaved
from showing import show
from subjects import RESNET18, Subject, method_of


def line(times: Times, names: Sequence[str]) -> tuple[float, float, float]:
    """Slope, intercept and largest residual (a share) of the medians by the names' numbers."""
    places = np.array([float(name) for name in names])
    seconds = np.array([np.median(times.seconds[name]) for name in names])
    # each point counts by its relative error
    slope, intercept = np.polyfit(places, seconds, 1, w=1 / seconds)
    fitted = slope * places + intercept
    return slope, intercept, float(np.abs(seconds / fitted - 1).max())


def by_attack_steps(subject: Subject, repeats: int) -> Iterator[Row]:
    """A further attack step in vanilla steps, and how straight the line is."""
    names = ["0", "1", "3", "5"]
    actions = {name: subject.step(method_of("advprop", int(name))) for name in names}
    actions["vanilla"] = subject.step(method_of("vanilla"))
    times = interleaved(actions, repeats=repeats)
    slope, _, residual = line(times, names)
    fields: dict[str, Any] = {"case": f"{subject}, K = 0, 1, 3, 5", "repeats": repeats}
    vanilla = float(np.median(times.seconds["vanilla"]))
    yield Row(
        what="one more attack step",
        value=slope / vanilla,
        against="vanilla",
        target=1.03 * 2 / 3,
        seconds=sum(times.spent.values()),
        **fields,
    )
    yield Row(what="largest residual", value=100 * residual, unit="%", **fields)


def by_images(subject: Subject, sizes: Sequence[int], repeats: int) -> Iterator[Row]:
    """A further image, what a step costs besides, and how straight the line is."""
    names = [str(size) for size in sizes]
    actions = {
        name: replace(subject, batch_size=int(name)).step(method_of("advprop", 1)) for name in names
    }
    times = interleaved(actions, repeats=repeats)
    slope, intercept, residual = line(times, names)
    case = f"{subject.architecture} of {subject.image_size} pixels, K = 1, {' '.join(names)} images"
    fields: dict[str, Any] = {"case": case, "repeats": repeats}
    spent, smallest = sum(times.spent.values()), intercept + slope * sizes[0]
    yield Row(what="one more image", value=1e3 * slope, unit="ms", seconds=spent, **fields)
    what = f"what does not grow, of a step with {sizes[0]} images"
    yield Row(what=what, value=100 * intercept / smallest, unit="%", **fields)
    yield Row(what="largest residual", value=100 * residual, unit="%", **fields)


def measure(quick: bool) -> Iterator[Row]:
    repeats = 2 if quick else 5
    yield from by_attack_steps(RESNET18.quick() if quick else RESNET18, repeats)
    sizes = (4, 8, 16) if quick else (8, 16, 32, 64)
    yield from by_images(RESNET18.quick() if quick else RESNET18, sizes, repeats)


if __name__ == "__main__":
    show(measure)
