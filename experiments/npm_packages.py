"""npm packages: fetched once by `npm pack`, then read as they are."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


def read_package(folder: Path, name: str, version: str, wanted: Callable[[str], bool]) -> Package:
    """Read the wanted JSON files of a package, named by their paths in it, and its package.json.

    Raises ValueError if the package is damaged.
    """
    path = _tarball(folder, name, version)
    try:
        with tarfile.open(path) as archive:
            files = {
                inner: json.load(archive.extractfile(member))  # type: ignore[arg-type]
                for member in archive
                if member.isfile()
                and (
                    (inner := member.name.removeprefix("package/")) == "package.json"
                    or wanted(inner)
                )
            }
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        license_ = files["package.json"]["license"]
    except (OSError, tarfile.TarError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"{path} is not whole ({error}): delete it to fetch it again") from error
    return Package(name=name, version=version, license=license_, sha256=digest, files=files)


def _tarball(folder: Path, name: str, version: str) -> Path:
    return folder / f"{name.removeprefix('@').replace('/', '-')}-{version}.tgz"


def svg_of(icons: Mapping[str, Any], name: str) -> str:
    """The SVG of an icon in a set's JSON."""
    icon = icons["icons"][name]
    left, top = icon.get("left", 0), icon.get("top", 0)
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}" width="{width}" height="{height}">'
        f"{icon['body']}</svg>"
    )
