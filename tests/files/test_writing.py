"""Full disks: one message with the path, why, what is free, and what to do."""

from __future__ import annotations

import errno
import io
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import safetensors.torch
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import SafetensorError

from advprop.data.preprocessing import Preprocessing
from advprop.data.shards.writing import write_shards
from advprop.exports.export import write_export
from advprop.files.atomic import WriteError, size_text, write_atomically, writing
from advprop.files.json_files import write_json
from advprop.methods.kept.store import PerturbationStore
from advprop.models.build import build_model
from advprop.training.checkpoint import Checkpoints
from advprop.training.run_log import RunLog
from advprop.training.trackers import begin_trackers, track

TOLD = r"could not be written \(.*No space left.* free\): .*(make room|fewer)"


def small() -> Any:
    return build_model("small_resnet", num_classes=3, in_chans=1, width=8, mean=[0.5], std=[0.5])


def export(folder: Path) -> None:
    preprocessing = Preprocessing(image_shape=(1, 16, 16))
    write_export(small(), folder / "made", class_names="abc", preprocessing=preprocessing)


def tracked(folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    begin_trackers(accelerator, folder, {}, tensorboard=True)
    track(accelerator, folder, 1, {"loss": 1.0})


WRITERS: dict[str, Callable[[Path], object]] = {
    "export": export,
    "shards": lambda folder: write_shards(folder.parent / "photos", folder / "shards"),
    "checkpoint": lambda folder: Checkpoints(folder).save(1, {"model": {"a": torch.ones(10**5)}}),
    "json": lambda folder: write_json(folder / "result.json", {"a": "x" * 10**6}),
    "log": lambda folder: RunLog(folder / "metrics.jsonl").append({"a": "x" * 10**6}),
    "tracker": tracked,
}


@pytest.fixture
def photos(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for number in range(8):
            path = tmp_path / "photos" / name / f"{number}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (64, 64), (number, 0, 0)).save(path)


def failing(error: Exception) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("writer", WRITERS)
def test_a_writer_that_fails_is_told(
    writer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    folder = tmp_path / "disk"
    folder.mkdir()
    rust = SafetensorError("Error while serializing: I/O error: No space left (os error 28)")
    monkeypatch.setattr(safetensors.torch, "save_file", failing(rust))
    monkeypatch.setattr(tarfile.TarFile, "addfile", failing(full))
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", failing(full))
    if writer in ("json", "log", "checkpoint"):
        monkeypatch.setattr(Path, "open", failing(full))
    with pytest.raises(WriteError, match=TOLD) as caught:
        WRITERS[writer](folder)
    assert str(folder) in str(caught.value)
    if writer != "tracker":
        assert not list(folder.rglob("*.*"))  # nothing half-written is left


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "full"), OSError(errno.ESTALE, "stale"), KeyboardInterrupt()],
    ids=["full", "stale", "ctrl-c"],
)
def test_what_a_file_raises_under_torchs_writer_comes_out(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Breaking(io.BytesIO):
        def write(self, content: Any) -> int:
            if self.tell() > 1000:
                raise error
            return super().write(content)

    monkeypatch.setattr(
        "advprop.training.checkpoint.write_atomically",
        lambda _path, write, **_: write(Breaking()),
    )
    with pytest.raises(type(error)) as caught:
        Checkpoints(tmp_path).save(1, {"model": {"a": torch.ones(10**5)}})
    assert caught.value is error


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    try:
        mounting = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"disks cannot be mounted here: {error}")
    if mounting.returncode:  # only root may; the writers that fail are tried everywhere
        pytest.skip(f"disks cannot be mounted here: {mounting.stderr}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("writer", [name for name in WRITERS if name != "tracker"])
def test_a_full_disk_is_told(writer: str, disk: Path) -> None:
    with pytest.raises(WriteError, match=TOLD):
        WRITERS[writer](disk)
    assert not [path for path in disk.rglob("*") if path.suffix not in ("", ".jsonl")]


def test_a_store_without_room_is_refused_before_it_is_written(disk: Path) -> None:
    store = PerturbationStore(num_images=9, shape=(3, 64, 64), epsilon=0.1, path=disk / "kept.bin")
    with pytest.raises(OSError, match=r"kept.bin grows by 230 kB, the disk has .* make room"):
        store.read(torch.arange(2), 0)
    assert not list(disk.iterdir())


@pytest.mark.parametrize("kind", [ValueError, OSError, RuntimeError, KeyError])
def test_other_errors_go_through(kind: type[Exception], tmp_path: Path) -> None:
    error = kind("x")
    with pytest.raises(kind) as caught, writing(tmp_path):
        raise error
    assert caught.value is error


def test_an_inner_message_stays(tmp_path: Path) -> None:
    inner = r"/x: could not .* \(quota; .* free\): inner$"
    with pytest.raises(WriteError, match=inner), writing(tmp_path, remedy="outer"):
        write_atomically(tmp_path / "x", failing(OSError(errno.EDQUOT, "quota")), remedy="inner")


def test_sizes_are_no_fractions() -> None:
    sizes = (0, 999, 1000, 12_345_678, 5 * 10**12)
    assert [*map(size_text, sizes)] == ["0 bytes", "999 bytes", "1 kB", "12.3 MB", "5e+03 GB"]
