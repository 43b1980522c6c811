"""Runs on several processes that do not see the same; test_agreeing.py starts this.

    python tests/training/agreeing.py FOLDER

One process imports everything and forks the processes of each run. Prints JSON: for each case what
each process ended with.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from advprop.config.overrides import apply_overrides
from advprop.recipes.builtin import digits
from advprop.runs import train

PROCESSES, ODD = 3, 2


def repaint(path: Path) -> None:
    Image.new("L", (8, 8), 7).save(path)


def swap(folder: Path) -> None:
    (folder / "red").rename(folder / "x")
    (folder / "blue").rename(folder / "red")
    (folder / "x").rename(folder / "blue")


CASES: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "alike": (lambda root: None, ()),
    "fewer images": (lambda root: (root / "train/red/3.png").unlink(), ()),
    "other pixels": (lambda root: repaint(root / "train/red/3.png"), ()),
    "other validation": (lambda root: (root / "val/red/0.png").unlink(), ()),
    "other order": (lambda root: (root / "train/red/3.png").rename(root / "train/red/0.1.png"), ()),
    "other labels": (lambda root: swap(root / "train"), ()),
    "other class": (
        lambda root: [
            (root / split / "red").rename(root / split / "rot") for split in ("train", "val")
        ],
        (),
    ),
    "nothing there": (shutil.rmtree, ()),
    "other settings": (lambda root: None, ("training.learning_rate=0.3",)),
}
"""What happens to the images of process `ODD`, and its settings."""


def photos(root: Path) -> Path:
    for split, count in (("train", 8), ("val", 2)):
        for shade, name in enumerate(("blue", "red")):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                picture = Image.new("L", (8, 8), 100 * shade + number)
                picture.save(root / split / name / f"{number}.png")
    return root


def run(rank: int, port: int, folder: Path, settings: tuple[str, ...]) -> str:
    """How a process's training ends, as text."""
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()}, MASTER_ADDR="127.0.0.1")
    base = ["data.kind=folder", f"data.root={folder}/photos{rank}", "data.num_train=none"]
    base += ["data.image_size=8", "data.channels=1", "model.options.width=4"]
    base += ["training.num_epochs=1", "training.batch_size=9"]
    config = apply_overrides(digits().with_method("vanilla"), [*base, *settings])
    try:
        train(config, folder / "run", quiet=True)
    except (ValueError, OSError) as error:
        return f"refused: {error}"
    except SystemExit as end:
        return f"ended: {end.code}"
    return "finished"


def case(name: str, folder: Path) -> list[str]:
    change, settings = CASES[name]
    for rank in range(PROCESSES):
        photos(folder / f"photos{rank}")
    change(folder / f"photos{ODD}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(PROCESSES):
        if child := os.fork():
            children.append(child)
            continue
        signal.alarm(60)
        ending = run(rank, port, folder, settings if rank == ODD else ())
        (folder / f"{rank}.txt").write_text(ending)
        os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    texts = [folder / f"{rank}.txt" for rank in range(PROCESSES)]
    return [path.read_text() if path.exists() else "killed" for path in texts]


if __name__ == "__main__":
    torch.set_num_threads(1)  # with more, a forked child would wait for threads it has not
    print(json.dumps({name: case(name, Path(sys.argv[1], name)) for name in CASES}))
