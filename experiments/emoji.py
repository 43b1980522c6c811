"""A colour image set out of real artwork: emoji by nine sets of artists, 14 kinds of things.

    pip install -e ".[experiments]"
    python experiments/emoji.py data/emoji --size 32

fetches the packages (npm, once), and writes DIR/train, DIR/val and DIR/test with a folder for each
class, for `advprop train from_scratch --set data.root=DIR`, and DIR/shift: the emoji of the test
set as artists drew them whom training never saw. An emoji is in one split only, whoever drew it.
`experiments/README.md` says what is in it and under which licences.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from emoji_classes import Emoji, classify, split_of
from emoji_packages import (
    ARTISTS,
    DATASOURCE,
    UNSEEN,
    Package,
    code_points_by_name,
    fetch_missing,
    packages_needed,
    read_package,
    svg_by_codes,
)
from emoji_pictures import background, compared, correlations, render

MADE_BY = "experiments/emoji.py of advprop"
ALIKE = 0.95
"""Correlation of pixels from which on a training image is a copy of a held-out one."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One image to be."""

    split: str
    label: str
    identity: str
    artist: str
    svg: str

    @property
    def name(self) -> str:
        return f"{self.identity.lower()}_{self.artist}"

    @property
    def path(self) -> str:
        return f"{self.split}/{self.label}/{self.name}.png"


def list_drawings(
    emoji: Sequence[Emoji], sets: Mapping[str, Mapping[str, str]], unseen: Sequence[str]
) -> list[Drawing]:
    """Every emoji as every artist drew it, in its split; unseen artists' of the test split only."""
    splits = split_of(emoji)
    found = []
    for one in emoji:
        for artist, drawn in sets.items():
            split = splits[one.identity]
            codes = next((codes for codes in one.codes if codes in drawn), None)
            if codes is None or (artist in unseen and split != "test"):
                continue
            split = "shift" if artist in unseen else split
            found.append(
                Drawing(
                    split=split,
                    label=one.label,
                    identity=one.identity,
                    artist=artist,
                    svg=drawn[codes],
                )
            )
    return sorted(found, key=lambda drawing: drawing.path)


def without_copies(drawings: Sequence[Drawing]) -> tuple[list[Drawing], list[str]]:
    """Drawings without training images that are copies of held-out ones, and the paths of these."""
    train = [one for one in drawings if one.split == "train"]
    held_out = [one for one in drawings if one.split != "train"]
    if not train or not held_out:
        return list(drawings), []
    pictures = {one.path: compared(one.svg) for one in drawings}
    alike = correlations(
        [pictures[one.path] for one in train], [pictures[one.path] for one in held_out]
    )
    copies = {one.path for one, most in zip(train, alike.max(axis=1), strict=True) if most >= ALIKE}
    return [one for one in drawings if one.path not in copies], sorted(copies)


def write_images(folder: Path, drawings: Sequence[Drawing], size: int) -> str:
    """Write every drawing; a hash of all paths and pixels."""
    digest = hashlib.sha256()
    for one in drawings:
        image = render(one.svg, size, background(one.name))
        path = folder / one.path
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        digest.update(one.path.encode() + b"\0" + np.asarray(image).tobytes())
    return digest.hexdigest()


def about(
    drawings: Sequence[Drawing],
    packages: Sequence[Package],
    *,
    size: int,
    copies: Sequence[str],
    pixels: str,
) -> dict[str, Any]:
    counts: dict[str, Counter[str]] = {}
    for one in drawings:
        counts.setdefault(one.split, Counter())[one.label] += 1
    return {
        "made_by": MADE_BY,
        "image_size": size,
        "packages": [package.about() for package in packages],
        "unseen_artists": list(UNSEEN),
        "images": {split: sum(labels.values()) for split, labels in counts.items()},
        "images_by_class": {
            split: dict(sorted(labels.items())) for split, labels in counts.items()
        },
        "copies_left_out": list(copies),
        "pixels_sha256": pixels,
    }


def check_free(folder: Path) -> None:
    """ValueError: something is in `folder` that this script did not write."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        ours = json.loads((folder / "about.json").read_text())["made_by"] == MADE_BY
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise ValueError(
            f"{folder} holds something that this script did not write: name another folder, or "
            "delete it first"
        )


def write_set(
    folder: Path, emoji: Sequence[Emoji], packages: Sequence[Package], size: int
) -> dict[str, Any]:
    """Write the whole set beside `folder` and move it there; what about.json says."""
    named = code_points_by_name(packages)
    sets = {
        package.name.removeprefix("@iconify-json/"): svg_by_codes(package, named)
        for package in packages
        if "icons.json" in package.files
    }
    chosen, copies = without_copies(list_drawings(emoji, sets, UNSEEN))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir()
        pixels = write_images(new, chosen, size)
        told = about(chosen, packages, size=size, copies=copies, pixels=pixels)
        (new / "about.json").write_text(json.dumps(told, indent=2) + "\n")
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        new.rename(folder)
    return told


def build(folder: Path, *, packages: Path, size: int) -> dict[str, Any]:
    """The set in `folder`, from the packages in `packages`; ValueError: a user's mistake."""
    if not 16 <= size <= 512:
        raise ValueError(f"--size {size} given: it must be between 16 and 512 pixels")
    check_free(folder)
    if importlib.util.find_spec("resvg_py") is None:
        raise ValueError(
            'resvg-py, which draws SVG, is not installed: pip install ".[experiments]"'
        )
    fetch_missing(packages, packages_needed())
    artists = [
        read_package(packages, f"@iconify-json/{name}", version)
        for name, version in ARTISTS.items()
    ]
    datasource = read_package(packages, *DATASOURCE)
    emoji = classify(datasource.files["emoji.json"])
    return write_set(folder, emoji, [*artists, datasource], size)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the images go")
    parser.add_argument("--size", type=int, default=64, help="pixels a side (default: 64)")
    parser.add_argument(
        "--packages",
        type=Path,
        default=Path("data/npm"),
        help="where the npm packages are, or are fetched to (default: data/npm)",
    )
    given = parser.parse_args(arguments)
    try:
        told = build(given.folder, packages=given.packages, size=given.size)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{given.folder}: {told['images']}, pixels {told['pixels_sha256'][:16]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
