"""Folders of rendered images: written beside their place, moved there whole, never over others'."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def check_can_write(folder: Path, *, made_by: str, size: int) -> None:
    """Raises ValueError if the size is out of bounds, if `folder` holds what `made_by` did not
    write, or if nothing can draw SVG."""
    if not 16 <= size <= 512:
        raise ValueError(f"--size {size} given: it must be between 16 and 512 pixels")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        try:
            ours = json.loads((folder / "about.json").read_text())["made_by"] == made_by
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise ValueError(
                f"{folder} holds something that this script did not write: name another folder, "
                "or delete it first"
            )
    if importlib.util.find_spec("resvg_py") is None:
        raise ValueError(
            'resvg-py, which draws SVG, is not installed: pip install ".[experiments]"'
        )


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """An empty folder beside `folder`, which takes its place when the block ends well."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)


def write_images(folder: Path, images: Iterable[tuple[str, Image.Image]]) -> str:
    """Write each image at its path below `folder`; a hash of all paths and pixels."""
    digest = hashlib.sha256()
    for name, image in images:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        digest.update(name.encode() + b"\0" + np.asarray(image).tobytes())
    return digest.hexdigest()


def counted(paths: Iterable[str]) -> dict[str, Any]:
    """The numbers of images of each split and of its classes, from paths SPLIT/CLASS/NAME."""
    counts: dict[str, Counter[str]] = {}
    for path in paths:
        split, label, _ = path.split("/")
        counts.setdefault(split, Counter())[label] += 1
    return {
        "images": {split: labels.total() for split, labels in counts.items()},
        "images_by_class": {
            split: dict(sorted(labels.items())) for split, labels in counts.items()
        },
    }


def parser(description: str) -> argparse.ArgumentParser:
    """What every script that renders a set is told."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("folder", type=Path, help="where the images go")
    found.add_argument("--size", type=int, default=64, help="pixels a side (default: 64)")
    found.add_argument(
        "--packages",
        type=Path,
        default=Path("data/npm"),
        help="where the npm packages are, or are fetched to (default: data/npm)",
    )
    return found


def run(
    options: argparse.ArgumentParser,
    build: Callable[..., dict[str, Any]],
    arguments: Sequence[str] | None,
) -> int:
    """`build` with the options given; a user's mistake becomes one message and 2."""
    given = options.parse_args(arguments)
    try:
        told = build(**vars(given))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.folder}: {told['images']}, pixels {told['pixels_sha256'][:16]}")
    return 0
