"""Files are put in their place whole; links, pipes and the user's umask are respected."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from advprop.files.atomic import (
    UNFINISHED,
    appearing_folder,
    check_free,
    sweep,
    write_atomically,
)
from advprop.files.json_files import write_json


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_link_stays_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "target.json", tmp_path / "link.json"
    target.write_text("old")
    link.symlink_to(target)
    write_json(link, {"a": 1})
    assert link.is_symlink()
    assert target.read_text() == '{\n  "a": 1\n}\n'
    assert sorted(tmp_path.rglob("*")) == [target.parent, target, link]


def test_a_pipe_stays_and_is_written_into(tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()), daemon=True)
    reader.start()
    write_json(pipe, {})
    reader.join(timeout=60)
    assert read == ["{}\n"]
    assert pipe.is_fifo()


@pytest.mark.usefixtures("umask")
def test_a_files_mode_is_what_the_umask_leaves(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {})
    assert (tmp_path / "value.json").stat().st_mode & 0o777 == 0o640


def test_what_a_kill_left_goes_with_the_next_write_of_the_same_name(tmp_path: Path) -> None:
    for name in (".page.html.00ff00ff", ".other.00ff00ff"):
        (tmp_path / f"{name}{UNFINISHED}").touch()
    write_atomically(tmp_path / "page.html", lambda file: file.write(b"new"))
    assert {path.name for path in tmp_path.iterdir()} == {
        "page.html",
        f".other.00ff00ff{UNFINISHED}",
    }


def test_what_another_is_still_writing_is_not_swept(tmp_path: Path) -> None:
    def meanwhile(file: IO[bytes]) -> None:
        sweep(tmp_path)
        write_atomically(tmp_path / "page.html", lambda other: other.write(b"first"))
        file.write(b"second")

    write_atomically(tmp_path / "page.html", meanwhile)
    assert (tmp_path / "page.html").read_bytes() == b"second"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_appears_whole_and_leaves_of_kills_go(tmp_path: Path) -> None:
    left = tmp_path / f".export.00ff00ff{UNFINISHED}"
    left.mkdir()
    (left / "model.safetensors").touch()
    with appearing_folder(tmp_path / "export") as folder:
        (folder / "whole").touch()
        sweep(tmp_path)
        assert not (tmp_path / "export").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["export"]
    with pytest.raises(RuntimeError), appearing_folder(tmp_path / "other"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_a_folder_that_cannot_be_replaced_is_refused_at_once(tmp_path: Path) -> None:
    check_free(tmp_path)
    check_free(tmp_path / "missing")
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="file: a file, not a folder"):
            check_free(place)
    with pytest.raises(ValueError, match="a mount point"):
        check_free(Path(tmp_path.anchor))
