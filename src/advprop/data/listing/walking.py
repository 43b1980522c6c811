"""Decide which entries of a folder are images, which are searched, and which are skipped."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

# formats that Pillow lists but cannot be used: they need Ghostscript or Windows, are films, have no
# known maximum value, or can be identified but not decoded
_NOT_READ = frozenset(("BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "MPEG", "PDF", "WMF"))
_NOT_READ_ENDINGS = frozenset((".pfm",))  # floats, though other files of its format hold integers

OTHER_PICTURES = frozenset(
    (
        *(".heic", ".heif", ".hif", ".jxl", ".svg", ".xcf", ".eps", ".pdf", ".wmf"),
        *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2"),  # cameras' raw formats
    )
)
"""Endings of pictures that Pillow does not read, although a user may expect it."""

_SYSTEM_FOLDERS = frozenset(
    (
        # network storage: thumbnails, bins and snapshots of Synology, QNAP and others
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "@snapshot", "@sharebin", "@__thumb"),
        *("#recycle", "#snapshot", "~snapshot", "recycle.bin", "network trash folder"),
        # operating systems
        *("__macosx", "temporary items", "$recycle.bin", "recycler", "recycled", "lost+found"),
        *("system volume information", "found.000", "lost.dir", "__pycache__"),
        # viewers, editors and cameras
        *("thumbs", "thumbnails", "thmbnl", "captureone", "[originals]", "zbthumbnail.info"),
    )
)
_SYSTEM_ENDINGS = (".lrdata", ".lrcat-data", ".cocatalogdb")  # caches of Lightroom, Capture One
_SPECIAL = {
    stat.S_IFIFO: "named pipe",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
}


ENDINGS_IN_WORDS = "images end in .jpg, .png, .webp, .tif or any other ending that Pillow reads"


class Entries(NamedTuple):
    """The sorted names of a folder's images and of its subfolders."""

    images: list[str]
    folders: list[str]


@cache
def image_formats() -> tuple[str, ...]:
    """Return Pillow's names of the formats that are read, the usual ones first."""
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_READ)


@cache
def image_endings() -> frozenset[str]:
    """Return the endings, in lower case, of the still pictures that Pillow reads."""
    read = {*image_formats(), "MPO"}  # Pillow opens MPO as JPEG
    known = Image.registered_extensions()
    return frozenset(e for e, name in known.items() if name in read) - _NOT_READ_ENDINGS


def special_kind(path: str | os.PathLike[str]) -> str | None:
    """Return the kind of a pipe, socket or device at `path`, else None; opening one could block.

    Raises OSError if nothing is there, or it cannot be accessed.
    """
    return _SPECIAL.get(stat.S_IFMT(os.stat(path).st_mode))


def entries_of(folder: str | os.PathLike[str], passed_over: Counter[str] | None = None) -> Entries:
    """Return the images and folders directly in `folder`; `passed_over` counts skipped entries.

    A link without a target counts as an image, so that reading it raises an error with its name.
    Raises OSError if `folder` is no folder, or may not be read.
    """
    images, folders = [], []
    passed_over = Counter() if passed_over is None else passed_over
    with os.scandir(folder) as entries:
        for entry in entries:
            ending = os.path.splitext(entry.name)[1].lower()
            if _is_folder(entry):
                if not _is_system_folder(entry.name):
                    folders.append(entry.name)
                elif not entry.name.startswith("."):
                    passed_over[f"folders {entry.name}"] += 1
            elif entry.name.startswith("."):
                passed_over["hidden files"] += 1
            elif ending not in image_endings():
                passed_over[f"{ending} files" if ending else "files without an ending"] += 1
            elif kind := _special_kind_of(entry):
                passed_over[f"{kind} {entry.path}"] += 1
            else:
                images.append(entry.name)
    return Entries(sorted(images), sorted(folders))


def images_below(
    folder: str | os.PathLike[str], passed_over: Counter[str] | None = None
) -> Iterator[str]:
    """Yield the paths of all images in `folder` and below; each folder is listed when reached.

    A folder's own images, sorted, come before those of its subfolders. Links are followed; a
    folder that is reached twice is listed once. Raises the OSError of `entries_of`.
    """
    places, seen = [os.fspath(folder)], set()
    while places:
        place = places.pop()
        real = os.path.realpath(place)
        if real in seen:
            continue
        seen.add(real)
        images, folders = entries_of(place, passed_over)
        yield from (os.path.join(place, name) for name in images)
        places += [os.path.join(place, name) for name in reversed(folders)]


def child_folders(folder: Path, passed_over: Counter[str] | None = None) -> list[Path]:
    """Return the sorted folders in `folder`, system folders excluded; raises OSError if missing."""
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}: check the path")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder: name one with a folder for each class")
    return [folder / name for name in entries_of(folder, passed_over).folders]


def listed(passed_over: Counter[str]) -> list[str]:
    """Return one text for each reason in `passed_over`, the most frequent first."""
    return [f"{count:,} {reason}" for reason, count in ranked(passed_over).items()]


def ranked(passed_over: Counter[str]) -> dict[str, int]:
    """Return the counts by reason, the most frequent first; those beyond 20 reasons are summed."""
    order = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in order[20:])
    return dict(order[:20]) | ({"others": rest} if rest else {})


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_system_folder(name: str) -> bool:
    name = name.casefold()
    return name.startswith(".") or name in _SYSTEM_FOLDERS or name.endswith(_SYSTEM_ENDINGS)


def _special_kind_of(entry: os.DirEntry[str]) -> str | None:
    try:
        return None if entry.is_file() else special_kind(entry.path)
    except OSError:  # a link without a target; reading it raises an error
        return None
