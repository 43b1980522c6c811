from __future__ import annotations

import io
import json
import os
import re
import tarfile
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from advprop.data.batches.loaders import train_batches
from advprop.data.listing import classes as listing
from advprop.data.preprocessing import Augmentation
from advprop.data.shards import scanning
from advprop.data.shards.finding import expand_braces
from advprop.data.shards.loading import load_shards
from advprop.data.shards.scanning import INDEX_NAME, index_shards, scan_shard
from advprop.data.view import View


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def write_tar(path, files, **options) -> None:
    with tarfile.open(path, "w", **options) as tar:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def samples(count: int, first: int = 0) -> list[tuple[str, bytes]]:
    """Images and labels (0, 1, 0, ...) under the keys 000, 001, ..."""
    return [
        file
        for number in range(first, first + count)
        for file in ((f"{number:03}.png", png(number)), (f"{number:03}.cls", b"%d" % (number % 2)))
    ]


def load(folder, **settings):
    names = {split: f"{folder}/{split}.tar" for split in ("train", "validation")}
    view = {
        name: settings.pop(name) for name in list(settings) if hasattr(View(image_size=6), name)
    }
    return load_shards(View(**{"image_size": 6, **view}), **{**names, **settings})


@pytest.fixture
def folder(tmp_path):
    write_tar(tmp_path / "train.tar", samples(6))
    write_tar(tmp_path / "validation.tar", samples(2))
    return tmp_path


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([("x.png", png(0))], r"train\.tar: 1 images without a label .*as x$"),
        ([("x.png", png(0)), ("x.json", b'{"caption": 3}')], "1 images without a label"),
        ([("x.png", png(0)), ("x.json", b"{")], "1 images without a label"),
        ([("x.cls", b"1"), ("y.cls", b"0")], "2 labels without an image .*as x, y"),
        ([("x.heic", b"?"), ("x.json", b'{"label": 1}')], "1 labels without an image"),
        ([("x.png", png(0)), ("x.cls", b"cat")], "1 labels that are no class number"),
        ([("x.png", png(0)), ("x.cls", b"-1")], "1 labels that are no class number"),
        ([("x.png", png(0)), ("x.txt", b"a cat")], "1 labels that are no class number"),
        ([("x.png", png(0)), ("x.json", b'{"label": true}')], "1 labels that are no class number"),
        ([("x.png", png(0)), ("x.json", b'{"label": 1.5}')], "1 labels that are no class number"),
        ([("x.png", png(0)), ("x.cls", b"9" * 5000)], "1 labels that are no class number"),
        ([("x.png", png(0)), ("x.jpg", png(0)), ("x.cls", b"1")], "1 samples with several images"),
        ([("x.png", png(0)), ("x.png", png(1)), ("x.cls", b"1")], "1 keys .*more than once, as x"),
        ([*samples(2, 4)[2:], *samples(1, 0)], "2 keys that come more than once, as 005, 000"),
    ],
)  # fmt: skip
def test_faulty_samples_are_counted_and_named(folder, files, message):
    write_tar(folder / "train.tar", [*samples(6), *files])
    with pytest.raises(ValueError, match=f"the shards have faults:\n.*{message}") as error:
        load(folder)
    assert len(str(error.value).splitlines()) == 2


def test_all_faults_of_all_shards_come_in_one_message(folder):
    write_tar(folder / "a.tar", [("x.png", png(0)), ("y.png", png(0)), ("z.cls", b"1")])
    (folder / "b.tar").write_bytes(b"no tar file" * 100)
    (folder / "c.tar").write_bytes(b"")
    write_tar(folder / "d.tar", [("notes.md", b"hello")])
    write_tar(folder / "e.tar", samples(1, 7))
    with tarfile.open(folder / "f.tar", "w:gz") as tar:
        tar.add(folder / "a.tar")
    with pytest.raises(ValueError, match="the shards have faults") as error:
        load(folder, train=f"{folder}/[a-f].tar")
    lines = str(error.value).splitlines()[1:]
    assert [re.search(r"/(.)\.tar: (\S+)", line).groups() for line in lines] == [
        ("a", "2"), ("a", "1"), ("b", "no"), ("c", "no"), ("d", "no"), ("f", "no"),
    ]  # fmt: skip


def test_labels_of_every_kind_and_odd_members(folder):
    write_tar(
        folder / "train.tar",
        [
            ("./s/0.PNG", png(0)), ("./s/0.Cls", b"1\n"),
            ("notes.txt", b"not a sample"), (".hidden.png", png(9)), ("README", b""),
            ("s/1.json", b'{"label": 1, "x": 2}'), ("s/1.png", png(1)), ("s/1.txt", b"a dog"),
            ("t.1/2.png", png(2)), ("t.1/2.txt", b"0"), ("t.1/2.mask.png", b"?"),
            ("\u00fc" * 90 + ".png", png(3)), ("\u00fc" * 90 + ".json", b'{"label": "0"}'),
        ],
    )  # fmt: skip
    split = load(folder).train
    assert [key.decode() for key in split.keys] == ["s/0", "s/1", "t.1/2", "\u00fc" * 90]
    assert split.labels.tolist() == [1, 1, 0, 0]
    for number in range(4):
        with Image.open(io.BytesIO(png(number))) as image:
            assert split.read(number).tobytes() == image.tobytes()


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_cut_at_any_place_gives_whole_samples_or_a_message(tmp_path, format):
    path = tmp_path / "train.tar"
    name = "long/" * 30
    files = [(f"{name * (key > '002')}{key}", content) for key, content in samples(5)]
    write_tar(path, files, format=format)
    whole, _ = scan_shard(path)
    content = path.read_bytes()
    assert whole.cut_at == -1
    ends = whole.offsets + whole.sizes
    counts = set()
    positions = {*range(0, len(content), 97), *range(0, len(content), 512)}
    positions |= {int(end) + step for end in ends for step in (-1, 0, 1)}
    last = -(-len(content.rstrip(b"\0")) // 512) * 512  # the end of the last label's block
    for position in sorted(positions):
        path.write_bytes(content[:position])
        shard, faults = scan_shard(path)
        count = len(shard.keys)
        counts.add(count)
        assert (shard.cut_at == -1) == (position >= last + 512)
        assert bool(faults) == (count == 0)
        assert shard.cut_at <= position
        for column in ("keys", "labels", "offsets", "sizes"):
            assert getattr(shard, column).tolist() == getattr(whole, column)[:count].tolist()
        assert all(ends[:count] <= position)
    assert counts == set(range(6))


def test_a_damaged_header_is_no_end(folder):
    content = bytearray((folder / "train.tar").read_bytes())
    start = content.index(b"003.png")
    content[start + 3] = ord("x")
    (folder / "train.tar").write_bytes(content)
    with pytest.raises(ValueError, match=f"train.tar is cut off or damaged from byte {start:,} on"):
        load(folder)


def test_damage_anywhere_is_never_a_traceback(tmp_path):
    path = tmp_path / "train.tar"
    write_tar(path, samples(3), format=tarfile.PAX_FORMAT)
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(content)
        for place in generator.integers(0, len(content), 5):
            damaged[place] = generator.integers(256)
        path.write_bytes(damaged)
        shard, _ = scan_shard(path)
        assert all(shard.offsets + shard.sizes <= len(content))


def test_a_cut_shard_needs_leave_and_warns(folder):
    content = (folder / "train.tar").read_bytes()
    (folder / "train.tar").write_bytes(content[: content.index(b"005.png") + 600])
    cut = r"train\.tar is cut off or damaged from byte [0-9,]+ on"
    for _ in range(2):  # scanned, then from the index
        with pytest.raises(
            ValueError, match=f"1 of 1 shards are not whole.*max_unreadable.*\n.*{cut}"
        ):
            load(folder)
        with pytest.warns(UserWarning, match=cut):
            split = load(folder, max_unreadable=0.1).train
        assert [key.decode() for key in split.keys] == ["000", "001", "002", "003", "004"]
    os.replace(folder / "train.tar", folder / "validation.tar")
    write_tar(folder / "train.tar", samples(6))
    with pytest.raises(ValueError, match=r"write them again\n.*validation\.tar is cut off"):
        load(folder, max_unreadable=0.1)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_unreadable_image_is_named_or_replaced(folder, workers, monkeypatch):
    monkeypatch.setattr(listing, "MAX_CHECKED_FILES", 7)
    files = samples(6)
    files[4] = ("002.png", b"no image")
    write_tar(folder / "train.tar", files)

    def batches(**settings):
        split = load(folder, augmentation=Augmentation(), **settings).train
        return list(train_batches(split, batch_size=6, seed=0, epoch=0, num_workers=workers))

    message = r"cannot read the image 002 in .*train\.tar: empty, damaged or not an image"
    with pytest.raises(ValueError, match=message):
        batches()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the loader may warn of it by name
        (batch,) = batches(max_unreadable=0.2)
    assert sorted({*batch.indices.tolist()}) == [0, 1, 3, 4, 5]
    (problem,) = batch.unreadable
    assert re.search(message, problem)


def test_all_unreadable_images_of_small_sets_are_named_at_start(folder):
    for split in ("train", "validation"):
        write_tar(folder / f"{split}.tar", [*samples(4), ("x.png", b"?"), ("x.cls", b"0")])
    with pytest.raises(ValueError, match="2 of 10 images cannot be read:") as error:
        load(folder)
    assert re.findall(r"image x in .*/(.*)\.tar: empty", str(error.value)) == [
        "train", "validation",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"1 of 5 images cannot be read:\n.*validation"):
        load(folder, max_unreadable=0.3)


def test_the_index_is_kept_and_looked_at_again_when_a_shard_changes(folder, monkeypatch):
    scanned = []

    def recording(path):
        scanned.append(path.name)
        return scan_shard(path)

    monkeypatch.setattr(scanning, "scan_shard", recording)
    first = load(folder)
    assert scanned == ["train.tar", "validation.tar"]
    second = load(folder)
    assert len(scanned) == 2
    for split in ("train", "validation"):
        one, other = getattr(first, split), getattr(second, split)
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.extents, other.extents)
        assert one.keys.tolist() == other.keys.tolist()
    write_tar(folder / "train.tar", samples(8))
    assert len(load(folder).train) == 8
    assert scanned[2:] == ["train.tar"]
    status = (folder / "train.tar").stat()
    write_tar(folder / "train.tar", [("x" + name, content) for name, content in samples(8)])
    os.utime(folder / "train.tar", ns=(0, status.st_mtime_ns + 1))  # the same size
    assert load(folder).train.keys[0] == b"x000"
    assert scanned[3:] == ["train.tar"]


@pytest.mark.parametrize("content", [b"", b"damaged", None])
def test_a_damaged_index_is_written_anew(folder, content):
    load(folder)
    index = folder / INDEX_NAME
    good = index.read_bytes()
    index.write_bytes(good[: len(good) // 2] if content is None else content)
    assert len(load(folder).train) == 6
    assert np.load(index)["counts"].sum() == 8
    assert [path.name for path in folder.glob(".*")] == [INDEX_NAME]


def test_an_index_of_another_format_is_written_anew(folder, monkeypatch):
    load(folder)
    monkeypatch.setattr(scanning, "_FORMAT", 99)
    load(folder)
    assert np.load(folder / INDEX_NAME)["format"] == 99


def test_a_folder_that_cannot_be_written_is_read_all_the_same(folder, monkeypatch):
    def refused(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(scanning, "write_atomically", refused)
    assert len(load(folder).train) == 6
    assert not (folder / INDEX_NAME).exists()


def test_a_full_disk_leaves_no_part_of_an_index(folder, monkeypatch):
    def full(file, **_):
        file.write(b"part")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scanning.np, "savez", full)
    assert len(load(folder).train) == 6
    assert not list(folder.glob(".*"))


def test_shards_of_several_folders_and_deleted_ones(tmp_path):
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        write_tar(tmp_path / str(number) / "x.tar", samples(2, 2 * number))
    paths = [tmp_path / str(number) / "x.tar" for number in range(3)]
    assert [shard.keys[0] for shard in index_shards(paths)] == [b"000", b"002", b"004"]
    write_tar(tmp_path / "0" / "y.tar", samples(1, 9))
    paths[0].unlink()
    index_shards([tmp_path / "0" / "y.tar"])
    assert np.load(tmp_path / "0" / INDEX_NAME)["names"].tolist() == [b"y.tar"]


def test_class_names_come_from_a_file_or_are_the_numbers(folder):
    assert load(folder).class_names == ("0", "1")
    (folder / "classes.txt").write_text("cat\ndog\n\n")
    assert load(folder).class_names == ("cat", "dog")
    (folder / "classes.json").write_text(json.dumps(["K\u00e4tzchen", "dog", "bird"]))
    assert load(folder).class_names == ("K\u00e4tzchen", "dog", "bird")
    assert load(folder, classes=folder / "classes.txt").class_names == ("cat", "dog")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.json", "[", r"classes\.json cannot be read .*write a list of names"),
        ("classes.json", '{"cat": 0}', "must hold a list of names"),
        ("classes.json", "[1, 2]", "must hold a list of names"),
        ("classes.txt", "cat\n", r"classes\.txt has 1 classes: at least 2"),
    ],
)
def test_class_names_that_cannot_be_read(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_labels_outside_of_the_classes(folder):
    write_tar(folder / "validation.tar", [*samples(2), ("x.png", png(0)), ("x.cls", b"2")])
    message = r"1 labels of data.validation are outside of the 2 classes, as 2 of x in .*n\.tar"
    with pytest.raises(ValueError, match=message):
        load(folder)
    write_tar(folder / "train.tar", [*samples(6), ("x.png", png(0)), ("x.cls", b"900000000")])
    with pytest.raises(ValueError, match=r"up to 900000000, but .*no images of class 2, 3, .*11: "):
        load(folder)
    (folder / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(ValueError, match=r"data.train are outside of the 2 classes, as 900000000"):
        load(folder)


def test_one_key_in_two_shards_is_refused(folder):
    write_tar(folder / "train-copy.tar", samples(3, 4))
    with pytest.raises(ValueError, match=r"2 keys of data.train come in more than one .*004 in"):
        load(folder, train=f"{folder}/train*.tar")


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        ({"train": "http://x/a.tar"}, "http://x/a.tar is no file.*copy them .*or mount"),
        ({"train": "s3://x/{0..3}.tar"}, "is no file"),
        ({"validation": "pipe:cat a.tar"}, "is no file"),
        ({"train": "/train{a}.tar"}, r"\{a\} in .*: braces hold a range"),
        ({"train": "/train{3..1}.tar"}, "must count up"),
        ({"train": "/train{0..99999999}.tar"}, "must count up, below 1,000,000"),
        ({"train": "/train{0..3}.tar"}, "4 of 4 shards of data.train are not there .*train0"),
        ({"validation": "/nothing*.tar"}, "1 of 1 shards of data.validation are not there"),
        ({"train": "/*.tar"}, "1 shards are in two splits .*validation.tar"),
        ({"train": "/empty"}, r"empty has no shards \(\*\.tar\) for data.train: name them"),
        ({"test": ""}, "has no shards .* for data.test"),
    ],
)
def test_patterns_that_name_no_shards_are_refused(folder, patterns, message):
    (folder / "empty").mkdir()
    patterns = {
        split: pattern if ":" in pattern else f"{folder}{pattern}"
        for split, pattern in patterns.items()
    }
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load(folder, **patterns)


def test_a_folder_with_shards_of_unclear_splits_is_refused(folder):
    write_tar(folder / "more.tar", samples(1, 9))
    with pytest.raises(ValueError, match=r"named after a split and others \(more\.tar\)"):
        load_shards(View(image_size=6), train=str(folder))


def test_a_folder_without_splits_in_its_names_is_all_for_one(tmp_path):
    for split, first in (("here", 0), ("there", 6)):
        (tmp_path / split).mkdir()
        write_tar(tmp_path / split / "trainstation-0.tar", samples(3, first))
        write_tar(tmp_path / split / "1.tar", samples(3, first + 3))
    data = load(tmp_path, train=str(tmp_path / "here"), validation=str(tmp_path / "there"))
    assert (len(data.train), len(data.validation), data.test) == (6, 6, None)


def test_too_few_images_to_share_off_and_settings_out_of_bounds(folder):
    write_tar(folder / "train.tar", samples(4))
    with pytest.raises(ValueError, match=r"none is left for .*a class with at least 3 images"):
        load(folder, validation=None)
    for setting, value in (("shuffle_shards", 0), ("max_unreadable", 1.0), ("crop_pct", 1.5)):
        with pytest.raises(ValueError, match=f"{setting}={value:g}: "):
            load(folder, **{setting: value})


def test_braces_count_and_list():
    assert expand_braces("a") == ["a"]
    assert expand_braces("a{08..11}b") == ["a08b", "a09b", "a10b", "a11b"]
    assert expand_braces("{a,b}/{0..1}") == ["a/0", "a/1", "b/0", "b/1"]
    assert sorted(expand_braces("{x{1..2},y}")) == ["x1", "x2", "y", "y"]
