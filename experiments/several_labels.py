"""Pictures with several labels, of MNIST digits, and the table of their labels.

    python experiments/several_labels.py data/several_labels

Each picture of 32 x 32 pixels holds three or four different digits of `mnist5k`, each with a size
and a place of its own in a quarter of the picture. Its labels are the ten digits, each present or
absent; 5 % of the training labels are unknown. Training, validation and test pictures are made of
the digits of these splits, so that no test picture holds a digit that training has seen. The
command of the comparison, and its result: README.md.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from advprop.data.sets.builtin import load_builtin
from advprop.data.splits import ArraySplit, ImageSplit

EDGE, PLACES, UNKNOWN = 32, 2, 0.05
COUNTS = {"train": 1000, "validation": 500, "test": 1500}
DIGITS = 10


def compose(split: ArraySplit, draw: np.random.Generator) -> tuple[Image.Image, set[int]]:
    """One picture, and the digits in it."""
    canvas, cell = torch.zeros(EDGE, EDGE), EDGE // PLACES
    while True:
        chosen = draw.choice(len(split), size=draw.integers(3, 5), replace=False)
        present = {int(split.labels[index]) for index in chosen}
        if len(present) == len(chosen):
            break
    for index, place in zip(chosen, draw.permutation(PLACES**2), strict=False):
        size = int(draw.integers(13, 18))
        digit = F.interpolate(split.pixels[index][None].float(), size=(size, size), mode="area")
        corner = [int(cell * part + draw.integers(-1, 3)) for part in divmod(int(place), PLACES)]
        top, left = (min(max(0, start), EDGE - size) for start in corner)
        part = canvas[top : top + size, left : left + size]
        torch.maximum(part, digit[0, 0], out=part)
    return Image.fromarray(canvas.byte().numpy()), present


def write(folder: Path) -> None:
    """Pictures and `labels.csv`; the same each time."""
    data, draw = load_builtin("mnist5k"), np.random.default_rng(0)
    splits: dict[str, ImageSplit] = {"train": data.train, "validation": data.validation}
    (folder / "pictures").mkdir(parents=True)
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file", "split", *(f"digit {digit}" for digit in range(DIGITS))])
        for name, count in COUNTS.items():
            split = splits.get(name) or data.test
            assert isinstance(split, ArraySplit)
            for number in range(count):
                picture, present = compose(split, draw)
                path = f"pictures/{name}-{number}.png"
                picture.save(folder / path)
                cells = [int(digit in present) for digit in range(DIGITS)]
                lost = draw.random(DIGITS) < UNKNOWN * (name == "train")
                row = ["" if gone else cell for gone, cell in zip(lost, cells, strict=True)]
                table.writerow([path, name, *row])


if __name__ == "__main__":
    write(Path(sys.argv[1]))
