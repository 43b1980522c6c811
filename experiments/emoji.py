"""A colour image set out of real artwork: emoji by nine sets of artists, 14 kinds of things.

    pip install -e ".[experiments]"
    python experiments/emoji.py data/emoji --size 32

fetches the packages (npm, once), and writes DIR/train, DIR/val and DIR/test with a folder for each
class, for `advprop train from_scratch --set data.root=DIR`, and DIR/shift: the emoji of the test
set as artists drew them whom training never saw. An emoji is in one split only, whoever drew it.
`experiments/README.md` says what is in it and under which licences.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoji_classes import Emoji, classify, split_of
from emoji_packages import (
    ARTISTS,
    DATASOURCE,
    UNSEEN,
    code_points_by_name,
    packages_needed,
    svg_by_codes,
    wanted,
)
from image_folder import check_can_write, counted, parser, replaced, run, write_images
from npm_packages import Package, fetch_missing, read_package
from pictures import ALIKE, background, compared, highest_correlations, render

MADE_BY = "experiments/emoji.py of advprop"


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
    alike = highest_correlations(
        [pictures[one.path] for one in train], [pictures[one.path] for one in held_out]
    )
    copies = {one.path for one, most in zip(train, alike, strict=True) if most >= ALIKE}
    return [one for one in drawings if one.path not in copies], sorted(copies)


def about(
    drawings: Sequence[Drawing],
    packages: Sequence[Package],
    *,
    size: int,
    copies: Sequence[str],
    pixels: str,
) -> dict[str, Any]:
    return {
        "made_by": MADE_BY,
        "image_size": size,
        "packages": [package.about() for package in packages],
        "unseen_artists": list(UNSEEN),
        **counted(one.path for one in drawings),
        "copies_left_out": list(copies),
        "pixels_sha256": pixels,
    }


def write_set(
    folder: Path, emoji: Sequence[Emoji], packages: Sequence[Package], size: int
) -> dict[str, Any]:
    """Write the whole set; returns what about.json says."""
    named = code_points_by_name(packages)
    sets = {
        package.name.removeprefix("@iconify-json/"): svg_by_codes(package, named)
        for package in packages
        if "icons.json" in package.files
    }
    chosen, copies = without_copies(list_drawings(emoji, sets, UNSEEN))
    with replaced(folder) as new:
        pixels = write_images(
            new, ((one.path, render(one.svg, size, background(one.name))) for one in chosen)
        )
        told = about(chosen, packages, size=size, copies=copies, pixels=pixels)
        (new / "about.json").write_text(json.dumps(told, indent=2) + "\n")
    return told


def build(folder: Path, *, packages: Path, size: int) -> dict[str, Any]:
    """The set in `folder`, from the packages in `packages`; ValueError: a user's mistake."""
    check_can_write(folder, made_by=MADE_BY, size=size)
    fetch_missing(packages, packages_needed())
    artists = [
        read_package(packages, f"@iconify-json/{name}", version, wanted)
        for name, version in ARTISTS.items()
    ]
    datasource = read_package(packages, *DATASOURCE, wanted)
    emoji = classify(datasource.files["emoji.json"])
    return write_set(folder, emoji, [*artists, datasource], size)


def main(arguments: Sequence[str] | None = None) -> int:
    return run(parser(__doc__.splitlines()[0]), build, arguments)


if __name__ == "__main__":
    sys.exit(main())
