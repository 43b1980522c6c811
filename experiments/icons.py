"""A larger image set out of real artwork: icons of 67 things, by more than a hundred designers.

    pip install -e ".[experiments]"
    python experiments/icons.py data/icons/32 --size 32

fetches the package `@iconify/json` (npm, once, 104 MB), and writes DIR/train, DIR/val and DIR/test
with a folder for each class, for `advprop train from_scratch --set data.root=DIR`, and
DIR/test_seen. The icons of val and test are by designers of whom training has no icon, those of
test_seen by designers of whom it has others. `experiments/README.md` says what is in it and under
which licences.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from icon_classes import (
    CATEGORIES_LEFT_OUT,
    MOST,
    SETS_LEFT_OUT,
    family_of,
    label_of,
    motif_of,
)
from image_folder import check_can_write, counted, parser, replaced, run, write_images
from npm_packages import Package, fetch_missing, read_package, svg_of
from pictures import (
    ALIKE,
    Pixels,
    background,
    compared,
    fixed_hash,
    foreground,
    highest_correlations,
    render,
)
from PIL import Image

MADE_BY = "experiments/icons.py of advprop"
ICONS = ("@iconify/json", "2.2.535")
LARGE = 0.03  # families with a larger share of the icons are trained on
TRAIN, VAL = 0.72, 0.84  # of the icons up to which share families train, validate; then they test
SEEN = 0.12  # of a training family's motifs that are tested on

Sets = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Icon:
    """One image to be."""

    prefix: str
    name: str
    label: str
    family: str
    svg: str
    split: str = ""

    @property
    def identity(self) -> str:
        return f"{self.prefix}_{self.name}"

    @property
    def path(self) -> str:
        return f"{self.split}/{self.label}/{self.identity}.png"

    def drawn(self, size: int) -> Image.Image:
        """As pixels; what the set leaves to the page's colour has a dark one."""
        svg = self.svg.replace("currentColor", foreground(self.identity))
        return render(svg, size, background(self.identity))


def list_icons(sets: Sets) -> list[Icon]:
    """The icons that have a class, at most `MOST` of a family in one, in a fixed order."""
    found: dict[tuple[str, str], list[Icon]] = {}
    for prefix, content in sorted(sets.items()):
        info = content["info"]
        if prefix in SETS_LEFT_OUT or info.get("category") in CATEGORIES_LEFT_OUT:
            continue
        family = family_of(info["author"]["name"])
        for name in content["icons"]:
            if label := label_of(name):
                svg = svg_of(content, name)
                icon = Icon(prefix=prefix, name=name, label=label, family=family, svg=svg)
                found.setdefault((family, label), []).append(icon)
    chosen = [icon for icons in found.values() for icon in _first(icons, MOST)]
    return sorted(chosen, key=lambda icon: icon.identity)


def _first(icons: Iterable[Icon], number: int) -> list[Icon]:
    return sorted(icons, key=lambda icon: fixed_hash(f"order {icon.identity}"))[:number]


def distinct(icons: Sequence[Icon]) -> dict[Icon, Pixels]:
    """What each icon looks like small; without empty ones and those that look like one before."""
    pictures: dict[bytes, tuple[Icon, Pixels]] = {}
    for icon in icons:
        picture = compared(icon.svg)
        if picture.min() < picture.max():
            pictures.setdefault(picture.tobytes(), (icon, picture))
    return dict(pictures.values())


def splits_of_families(icons: Iterable[Icon]) -> dict[str, str]:
    """The split of each family: large ones train, others by a fixed hash of their names."""
    sizes = Counter(icon.family for icon in icons)
    small = [family for family, size in sizes.items() if size <= LARGE * sizes.total()]
    small.sort(key=lambda family: fixed_hash(f"family {family}"))
    splits = dict.fromkeys(sizes, "train")
    before = sizes.total() - sum(sizes[family] for family in small)
    for family in small:
        share = (before + sizes[family] / 2) / sizes.total()
        splits[family] = "train" if share < TRAIN else "val" if share < VAL else "test"
        before += sizes[family]
    return splits


def in_splits(icons: Sequence[Icon]) -> list[Icon]:
    """The icons with their splits: by family, and of training families some motifs apart."""
    splits = splits_of_families(icons)
    return [replace(icon, split=_seen_or(splits[icon.family], icon)) for icon in icons]


def _seen_or(split: str, icon: Icon) -> str:
    drawn = fixed_hash(f"seen {icon.family} {motif_of(icon.name)}") / 2**64
    return "test_seen" if split == "train" and drawn < SEEN else split


def without_copies(pictures: Mapping[Icon, Pixels]) -> tuple[list[Icon], dict[str, int]]:
    """Icons without those that are all but in an earlier split; how many these are by split."""
    kept: list[Icon] = []
    copies = {}
    for split in ("train", "test", "test_seen", "val"):
        icons = [icon for icon in pictures if icon.split == split]
        if kept and icons:
            alike = highest_correlations(
                [pictures[icon] for icon in icons], [pictures[icon] for icon in kept]
            )
            new = [icon for icon, most in zip(icons, alike, strict=True) if most < ALIKE]
            copies[split] = len(icons) - len(new)
            icons = new
        kept += icons
    return kept, copies


def limited(icons: Sequence[Icon], number: int | None) -> list[Icon]:
    """At most so many icons of each class and split."""
    groups: dict[tuple[str, str], list[Icon]] = {}
    for icon in icons:
        groups.setdefault((icon.split, icon.label), []).append(icon)
    return [icon for group in groups.values() for icon in _first(group, number or len(group))]


def about_sets(icons: Iterable[Icon], sets: Sets) -> list[dict[str, Any]]:
    """Each set with its author, its licence, and how many icons of it are in which split."""
    counts: dict[str, Counter[str]] = {}
    for icon in icons:
        counts.setdefault(icon.prefix, Counter())[icon.split] += 1
    return [
        {
            "set": prefix,
            "name": sets[prefix]["info"]["name"],
            "family": family_of(sets[prefix]["info"]["author"]["name"]),
            "author": sets[prefix]["info"]["author"],
            "license": sets[prefix]["info"]["license"],
            "images": dict(sorted(counts[prefix].items())),
        }
        for prefix in sorted(counts)
    ]


def write_set(folder: Path, sets: Sets, size: int, *, limit: int | None = None) -> dict[str, Any]:
    """Write the whole set; returns what about.json says."""
    listed = list_icons(sets)
    pictures = distinct(listed)
    placed = dict(zip(in_splits(list(pictures)), pictures.values(), strict=True))
    kept, copies = without_copies(placed)
    chosen = sorted(limited(kept, limit), key=lambda icon: icon.path)
    with replaced(folder) as new:
        pixels = write_images(new, ((icon.path, icon.drawn(size)) for icon in chosen))
        told = {
            "made_by": MADE_BY,
            "image_size": size,
            **counted(icon.path for icon in chosen),
            "identical_or_empty_left_out": len(listed) - len(pictures),
            "copies_left_out": copies,
            "sets": about_sets(chosen, sets),
            "pixels_sha256": pixels,
        }
        (new / "about.json").write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n")
    return told


def sets_of(package: Package) -> Sets:
    """The sets of icons in the package, by prefix."""
    return {content["prefix"]: content for path, content in package.files.items() if _is_set(path)}


def _is_set(path: str) -> bool:
    return path.startswith("json/") and path.endswith(".json")


def build(folder: Path, *, packages: Path, size: int, limit: int | None) -> dict[str, Any]:
    """The set in `folder`, from the package in `packages`; ValueError: a user's mistake."""
    if limit is not None and limit < 1:
        raise ValueError(f"--limit {limit} given: it must be at least 1 icon of each class")
    check_can_write(folder, made_by=MADE_BY, size=size)
    fetch_missing(packages, dict([ICONS]))
    return write_set(folder, sets_of(read_package(packages, *ICONS, _is_set)), size, limit=limit)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser(__doc__.splitlines()[0])
    options.add_argument(
        "--limit", type=int, help="at most so many icons of each class and split (default: all)"
    )
    return run(options, build, arguments)


if __name__ == "__main__":
    sys.exit(main())
