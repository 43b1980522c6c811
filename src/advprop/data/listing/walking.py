"""What an image folder is: which entries are images, which are looked into, which passed over."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

# Pillow knows them by name; these need Ghostscript or Windows, are films, have no known brightest
# value, or are only recognised
_NOT_READ = frozenset(("BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "MPEG", "PDF", "WMF"))
_NOT_READ_ENDINGS = frozenset((".pfm",))  # floats, in a format that else holds whole numbers

OTHER_PICTURES = frozenset(
    (
        *(".heic", ".heif", ".hif", ".jxl", ".svg", ".xcf", ".eps", ".pdf", ".wmf"),
        *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2"),  # cameras' own
    )
)
"""Endings of pictures that Pillow does not read, which a user may take for images here."""

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
    """The names of a folder's images and of the folders in it, sorted."""

    images: list[str]
    folders: list[str]


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, the usual ones first."""
    Image.preinit()
    Image.init()
    return tuple(name for name in Image.ID if name not in _NOT_READ)


@cache
def image_endings() -> frozenset[str]:
    """The endings of images, in small letters: those of the still pictures that Pillow reads."""
    read = {*image_formats(), "MPO"}  # which Pillow opens as JPEG
    known = Image.registered_extensions()
    return frozenset(e for e, name in known.items() if name in read) - _NOT_READ_ENDINGS


def has_image_name(name: str) -> bool:
    """Whether a visible file of this name is an image, by its ending."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in image_endings()


def is_system_folder(name: str) -> bool:
    """Whether a system or a program keeps its own files in folders of this name."""
    name = name.casefold()
    return name.startswith(".") or name in _SYSTEM_FOLDERS or name.endswith(_SYSTEM_ENDINGS)


def special_kind(path: str | os.PathLike[str]) -> str | None:
    """What stands at `path`, if it is neither a file nor a folder: opening it could wait for ever.

    OSError: nothing is there, or it cannot be looked at.
    """
    return _SPECIAL.get(stat.S_IFMT(os.stat(path).st_mode))


def entries_of(folder: str | os.PathLike[str], passed_over: Counter[str] | None = None) -> Entries:
    """The images and folders directly in `folder`; counts in `passed_over` what is neither.

    A link whose target is missing is an image, so that reading it names it. OSError: no folder, or
    one that may not be read.
    """
    images, folders = [], []
    passed_over = Counter() if passed_over is None else passed_over
    with os.scandir(folder) as entries:
        for entry in entries:
            if _is_folder(entry):
                if not is_system_folder(entry.name):
                    folders.append(entry.name)
                elif not entry.name.startswith("."):
                    passed_over[f"folders {entry.name}"] += 1
            elif entry.name.startswith("."):
                passed_over["hidden files"] += 1
            elif not has_image_name(entry.name):
                ending = os.path.splitext(entry.name)[1].lower()
                passed_over[f"{ending} files" if ending else "files without an ending"] += 1
            elif kind := _special_kind_of(entry):
                passed_over[f"{kind} {entry.path}"] += 1
            else:
                images.append(entry.name)
    return Entries(sorted(images), sorted(folders))


def images_below(
    folder: str | os.PathLike[str], passed_over: Counter[str] | None = None
) -> Iterator[str]:
    """The paths of all images in `folder` and below, listed as they are asked for.

    A folder's images come before those of the folders in it, each sorted. Links are followed; a
    folder that is reached twice is listed once. OSError as of `entries_of`.
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
    """The folders in `folder` that are no system's, sorted. OSError: no such folder."""
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}: check the path")
    if not folder.is_dir():
        raise NotADirectoryError(f"{folder} is not a folder: name one with a folder for each class")
    return [folder / name for name in entries_of(folder, passed_over).folders]


def listed(passed_over: Counter[str]) -> list[str]:
    """`passed_over` in words, the most frequent first."""
    return [f"{count:,} {reason}" for reason, count in ranked(passed_over).items()]


def ranked(passed_over: Counter[str], limit: int = 20) -> dict[str, int]:
    """The most frequent reasons of `passed_over` first; those beyond `limit` as one."""
    order = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    rest = sum(count for _, count in order[limit:])
    return dict(order[:limit]) | ({"others": rest} if rest else {})


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _special_kind_of(entry: os.DirEntry[str]) -> str | None:
    try:
        return None if entry.is_file() else special_kind(entry.path)
    except OSError:  # a link to nothing; reading it says so
        return None
