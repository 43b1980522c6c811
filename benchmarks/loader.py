"""Training images a second: our loader against torchvision's bare one, on the same files.

    python benchmarks/loader.py [--quick]

Files are JPEG photographs: 400 x 300 pixels, read as 224 x 224, and small ones of 32 x 32. Both
make a random resized crop (bicubic), a flip and a float tensor, with 0 and 2 worker processes,
which each epoch starts anew. Ours does it by timm's transforms and seeds every image by itself, so
that a view depends on (seed, epoch, image) alone; images are bytes until a step makes them floats,
which counts here. Seconds are the clock's, an epoch's.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import torch
from measuring import Row, interleaved
from photographs import save_crops
from showing import show
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from advprop.config.data import FolderDataConfig
from advprop.data.batches.loaders import train_batches
from advprop.shapes import Batch

BATCH_SIZE = 32
OURS, THEIRS = "advprop", "torchvision's loader"
FILES = {"400 x 300 as 224 x 224": ((400, 300), 224), "32 x 32": ((32, 32), 32)}


def exhaust(batches: Iterable[object]) -> None:
    for batch in batches:
        if isinstance(batch, Batch):
            batch.to(torch.device("cpu"), memory_format=torch.contiguous_format)


def our_batches(root: Path, image_size: int, num_workers: int) -> Iterable[Batch]:
    data = FolderDataConfig(root=root, image_size=image_size).load(0)
    return train_batches(
        data.train, batch_size=BATCH_SIZE, seed=0, epoch=0, num_workers=num_workers
    )


def their_batches(root: Path, image_size: int, num_workers: int) -> Iterable[object]:
    bicubic = transforms.InterpolationMode.BICUBIC
    view = transforms.Compose(
        [
            transforms.RandomResizedCrop(image_size, interpolation=bicubic),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
        ]
    )
    images = ImageFolder(root / "train", view)
    return DataLoader(images, BATCH_SIZE, shuffle=True, num_workers=num_workers, drop_last=True)


def measure(quick: bool) -> Iterator[Row]:
    count, repeats = (64, 2) if quick else (320, 7)
    for what, (file_size, image_size) in FILES.items():
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            save_crops(root / "train", count=count, size=file_size)
            save_crops(root / "val", count=2, size=file_size)
            for num_workers in (0, 2):
                makers = {OURS: our_batches, THEIRS: their_batches}
                actions = {
                    name: partial(exhaust, make(root, image_size, num_workers))
                    for name, make in makers.items()
                }
                times = interleaved(actions, repeats=repeats, clock=time.perf_counter)
                case = f"{what}, {num_workers} workers"
                yield times.rate(OURS, count, case=case, unit="images/s")
                yield times.ratio(THEIRS, OURS, "images a second", case=case, against=THEIRS)


if __name__ == "__main__":
    show(measure)
