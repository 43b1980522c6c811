"""The npm packages that the emoji come from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from emoji_classes import plain
from npm_packages import Package, svg_of

DATASOURCE = ("emoji-datasource", "16.0.0")
"""Names, subgroups and code points; MIT."""

ARTISTS = {
    "noto": "1.2.9",
    "noto-v1": "1.2.5",
    "twemoji": "1.2.5",
    "fluent-emoji-flat": "1.2.6",
    "fluent-emoji": "1.2.7",
    "emojione": "1.2.3",
    "emojione-v1": "1.2.3",
    "openmoji": "1.2.29",
    "fxemoji": "1.2.2",
}
"""Versions of the packages `@iconify-json/...`, each the drawings of one group of artists."""

RENAMED = {"cricket": "1F3CF"}
"""Code points of names that the sets without code points use as they were used in their time."""

MISTAKEN = {("emojione-v1", "2328"), ("fxemoji", "1FA9F")}
"""Drawings of something else: a piano's keyboard, a window of a program."""

UNSEEN = ("openmoji", "fxemoji")
"""Artists whose drawings training never sees: they make the set `shift`."""


def packages_needed() -> dict[str, str]:
    """Name and version of every package."""
    return {f"@iconify-json/{name}": version for name, version in ARTISTS.items()} | dict(
        [DATASOURCE]
    )


def wanted(path: str) -> bool:
    """Whether the file at `path` of a package is read."""
    return path in ("info.json", "chars.json", "icons.json", "emoji.json")


def code_points_by_name(packages: Iterable[Package]) -> dict[str, str]:
    """Code points by icon name, from the sets that state them, for those that do not."""
    names: dict[str, str] = {}
    for package in packages:
        for codes, name in package.files.get("chars.json", {}).items():
            names.setdefault(_squashed(name), plain(codes))
    return names | RENAMED


def svg_by_codes(package: Package, codes_by_name: Mapping[str, str]) -> dict[str, str]:
    """The SVG of each code point sequence that a set has."""
    icons = package.files["icons.json"]
    stated = package.files.get("chars.json", {})
    names: dict[str, str] = {plain(codes): name for codes, name in stated.items()}
    if not names:
        names = _names_by_codes(icons, codes_by_name)
    artist = package.name.rpartition("/")[2]
    return {
        codes: svg_of(icons, name)
        for codes, name in names.items()
        if name in icons["icons"] and (artist, codes) not in MISTAKEN
    }


def _names_by_codes(icons: Mapping[str, Any], codes_by_name: Mapping[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    aliases = {name: alias["parent"] for name, alias in icons.get("aliases", {}).items()}
    # a set's own names come first, former names of its icons second
    for name, icon in [(name, name) for name in icons["icons"]] + list(aliases.items()):
        if codes := codes_by_name.get(_squashed(name)):
            found.setdefault(codes, icon)
    return found


def _squashed(name: str) -> str:
    """An icon's name without what sets write differently."""
    return name.replace("-", "").replace("flagforflag", "flag").replace("flagfor", "flag")
