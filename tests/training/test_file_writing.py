"""Files are put in their place whole; links, pipes and the user's umask are respected."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from advprop.training.files import write_json


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
