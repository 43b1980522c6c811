"""The npm packages that the emoji come from: fetched once, then read as they are."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emoji_classes import plain

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


@dataclass(frozen=True, kw_only=True)
class Package:
    """A package as npm packs it, and what stands in it about itself."""

    name: str
    version: str
    license: str
    sha256: str
    files: Mapping[str, Any]

    def about(self) -> dict[str, str]:
        """Where the images come from, for about.json."""
        author = self.files.get("info.json", {}).get("author", {})
        source = {key: author[key] for key in ("name", "url") if key in author}
        return {
            "package": self.name,
            "version": self.version,
            "license": self.license,
            "sha256": self.sha256,
            **source,
        }


def packages_needed() -> dict[str, str]:
    """Name and version of every package."""
    return {f"@iconify-json/{name}": version for name, version in ARTISTS.items()} | dict(
        [DATASOURCE]
    )


def fetch_missing(folder: Path, needed: Mapping[str, str]) -> None:
    """Bring packages that are not in `folder` there, by `npm pack`; ValueError: it fails."""
    missing = {
        name: version
        for name, version in needed.items()
        if not _tarball(folder, name, version).exists()
    }
    if not missing:
        return
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            f"{len(missing)} npm packages are not in {folder} ({', '.join(missing)}), and there is "
            "no npm to fetch them: install it, or name their folder with --packages"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in missing.items():
        command = [npm, "pack", f"{name}@{version}", "--pack-destination", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not _tarball(folder, name, version).exists():
            last = (done.stderr.strip() or "no message").splitlines()[-1]
            raise ValueError(f"npm cannot fetch {name}@{version} into {folder}: {last}")


def read_package(folder: Path, name: str, version: str) -> Package:
    """Read the JSON files of a package; ValueError: it is damaged."""
    path = _tarball(folder, name, version)
    try:
        with tarfile.open(path) as archive:
            files = {
                member.name.removeprefix("package/"): json.load(archive.extractfile(member))  # type: ignore[arg-type]
                for member in archive
                if member.isfile() and member.name.count("/") == 1 and _wanted(member.name)
            }
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        license_ = files["package.json"]["license"]
    except (OSError, tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not whole ({error}): delete it to fetch it again") from error
    return Package(name=name, version=version, license=license_, sha256=digest, files=files)


def _wanted(member: str) -> bool:
    wanted = ("package.json", "info.json", "chars.json", "icons.json", "emoji.json")
    return Path(member).name in wanted


def _tarball(folder: Path, name: str, version: str) -> Path:
    return folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


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
    svg, artist = _svg_of(icons), package.name.rpartition("/")[2]
    return {
        codes: svg(name)
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


def _svg_of(icons: Mapping[str, Any]) -> Callable[[str], str]:
    def svg(name: str) -> str:
        icon = icons["icons"][name]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
            f"{icon['body']}</svg>"
        )

    return svg
