"""One rule for what an image folder holds, in training, testing, shards and predictions."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from advprop.data.found import found_in
from advprop.data.listing.walking import entries_of, image_endings, images_below, ranked
from advprop.data.preprocessing import Preprocessing
from advprop.data.reading import header_problem, read_image
from advprop.data.sets.folders import load_folder, load_test_folder
from advprop.data.shards.finding import find_shards
from advprop.data.shards.writing import write_shards
from advprop.data.view import View
from advprop.exports.prediction import find_images

SYSTEM_FOLDERS = [
    "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "__MACOSX", "Thumbs",
    "thumbnails", ".thumbnails", "$RECYCLE.BIN", "System Volume Information", "lost+found",
    ".ipynb_checkpoints", ".picasaoriginals", "Catalog Previews.lrdata", "CaptureOne",
    ".Trash-1000", "~snapshot", "RECYCLER", "Temporary Items", "FOUND.000", "[Originals]",
]  # fmt: skip


@pytest.mark.parametrize("name", SYSTEM_FOLDERS)
def test_system_folders_hold_no_images_at_any_depth(write_images, name):
    plain = {"a": 5, "a/deep": 1, "b": 5}
    root = write_images(plain | {f"a/{name}": 2, f"a/deep/{name}/000.png": 1, name: 3})
    names = [os.path.relpath(path, root) for path in images_below(root)]
    assert len(names) == 11
    assert not [path for path in names if name in path]
    data = load_folder(root, View(image_size=8))
    assert data.class_names == ("a", "b")
    assert len(data.train) + len(data.validation) + len(data.test) == 11
    seen = f"folders {name}" in data.origin.passed_over
    assert seen != name.startswith(".")


@pytest.mark.parametrize(
    "name", ["eaDir", "recycle", "thumb", "thumbs_up", "#winter", "@home", "$100", "snapshot"]
)
def test_folders_that_only_look_like_a_systems_are_classes(write_images, name):
    assert name in load_folder(write_images({name: 4, "b": 4}), View(image_size=8)).class_names


@pytest.mark.parametrize(
    "ending", [".jfif", ".jpe", ".JPG", ".avif", ".jp2", ".tga", ".ico", ".pcx", ".mpo", ".apng"]
)
def test_whatever_still_picture_pillow_reads_is_used(write_images, ending):
    root = write_images({"a": 3, "b": 3})
    written = {".jfif": "JPEG", ".jpe": "JPEG", ".mpo": "JPEG", ".apng": "PNG"}.get(ending)
    Image.new("RGB", (16, 16)).save(root / "a" / f"new{ending}", format=written)
    split = load_test_folder(
        root, class_names=("a", "b"), preprocessing=Preprocessing(image_shape=(3, 8, 8))
    )
    assert str(root / "a" / f"new{ending}") in split.paths
    assert split.images([(None, index) for index in range(7)]).shape == (7, 3, 8, 8)


@pytest.mark.parametrize("ending", [".pdf", ".mpg", ".eps", ".ps", ".h5", ".fits", ".pfm", ".wmf"])
def test_what_is_no_still_picture_is_none(ending):
    assert ending not in image_endings()


def test_a_format_that_is_not_read_is_none_under_another_ending_either(tmp_path):
    path = tmp_path / "page.jpg"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    assert (
        header_problem(path)
        == f"{path}: empty, damaged or not an image that Pillow reads; repair or delete it"
    )


def test_what_was_passed_over_is_counted_and_pictures_pillow_cannot_read_are_named(write_images):
    root = write_images({"train/a": 2, "train/b": 2, "val/a": 1, "val/b": 1, "extra/a": 1})
    for name in ("a/1.heic", "a/2.HEIC", "b/3.heic", "b/4.nef", "b/notes.txt", "b/README"):
        (root / "train" / name).write_bytes(b"")
    (root / "train" / "a" / ".DS_Store").write_bytes(b"")
    (root / "val" / "a" / "@eaDir").mkdir()
    (root / "loose.png").write_bytes(b"")
    found = found_in(load_folder(root, View(image_size=8)))
    assert found.passed_over == {
        ".heic files": 3, ".nef files": 1, ".txt files": 1, "files without an ending": 1,
        "hidden files": 1, "folders @eaDir": 1, "folder extra/ beside train/": 1,
        "images beside train/": 1,
    }  # fmt: skip
    assert "skipped: 3 .heic files, 1 .nef files" in "\n".join(found.lines())
    assert found.notes == ("4 pictures are not used, Pillow reads no .heic, .nef: convert to .jpg",)


def test_an_empty_class_says_what_is_there_instead(write_images):
    root = write_images({"a": 3, "b": 0})
    (root / "b" / "1.heic").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no images for the class b .*there are 1 \.heic files"):
        load_folder(root, View(image_size=8))


def test_so_many_reasons_stay_few():
    reasons = ranked(Counter({f".{number:03d} files": 1 for number in range(50)}))
    assert len(reasons) == 21
    assert reasons["others"] == 30


@pytest.fixture
def special(write_images) -> Path:
    """Two classes, among whose images are a named pipe, a socket, and a link to a device."""
    root = write_images({"a": 4, "b": 4})
    os.mkfifo(root / "a" / "pipe.jpg")
    (root / "a" / "null.png").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(root / "b", os.O_RDONLY)  # names of sockets are short
        listening.bind(f"/proc/self/fd/{here}/socket.png")
        os.close(here)
    return root


def test_pipes_sockets_and_devices_are_named_and_never_opened(special):
    data = load_folder(special, View(image_size=8))
    assert len(data.train) + len(data.validation) + len(data.test) == 8
    assert set(data.origin.passed_over) == {
        f"named pipe {special}/a/pipe.jpg",
        f"device {special}/a/null.png",
        f"socket {special}/b/socket.png",
    }
    assert len(list(find_images([str(special)]))) == 8
    assert sum(part.num_images for part in write_shards(special, special / "out").values()) == 8


def test_a_pipe_that_is_named_is_refused(special):
    with pytest.raises(ValueError, match=r"pipe\.jpg: it is a named pipe, not a file"):
        read_image(special / "a" / "pipe.jpg", channels=3)
    assert "named pipe" in str(header_problem(special / "a" / "pipe.jpg"))
    os.mkfifo(special / "train-000.tar")
    with pytest.raises(FileNotFoundError, match=r"1 of 1 shards of data\.train are not there"):
        find_shards(str(special / "train-000.tar"), None, None)
    with pytest.raises(FileNotFoundError, match="has no shards"):
        find_shards(str(special), None, None)


def test_links_to_nothing_and_to_themselves_are_unreadable_images(write_images):
    root = write_images({"a": 4, "b": 4})
    (root / "a" / "gone.png").symlink_to(root / "nowhere.png")
    (root / "a" / "self.png").symlink_to(root / "a" / "self.png")
    with pytest.raises(ValueError, match="2 of 10 images cannot be read") as error:
        load_folder(root, View(image_size=8))
    assert "gone.png: there is no such file" in str(error.value)


def test_a_folder_that_is_reached_twice_is_listed_once(write_images):
    root = write_images({"a/one": 2, "b": 2})
    (root / "a" / "two").symlink_to(root / "a" / "one", target_is_directory=True)
    (root / "a" / "one" / "back").symlink_to(root, target_is_directory=True)
    listed = [os.path.relpath(os.path.realpath(path), root) for path in images_below(root / "a")]
    assert listed == ["a/one/000.png", "a/one/001.png", "b/000.png", "b/001.png"]


def test_entries_are_images_and_folders(write_images):
    root = write_images({"": 2, "b": 1, "a": 1})
    assert entries_of(root) == (["000.png", "001.png"], ["a", "b"])
