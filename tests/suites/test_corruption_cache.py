"""What is kept of corrupted images equals what would be made, and damage is noticed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from advprop.suites import corruption_cache
from advprop.suites.corruption_cache import cache_folder, corrupted_images

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 1, 28, 28), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADVPROP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def made_again(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Records what is made from now on."""
    calls: list[tuple[str, int]] = []
    original = corruption_cache.corrupted

    def recorded(pixels: np.ndarray, *, corruption: str, severity: int) -> np.ndarray:
        calls.append((corruption, severity))
        return original(pixels, corruption=corruption, severity=severity)

    monkeypatch.setattr(corruption_cache, "corrupted", recorded)
    return calls


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_images_are_made_once_and_read_after(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = corrupted_images(PIXELS, num_conditions=1).under("shot_noise", 2)
    calls = made_again(monkeypatch)
    read = corrupted_images(PIXELS.copy(), num_conditions=1).under("shot_noise", 2)
    assert np.array_equal(read, made)
    assert not calls
    assert [path.name for path in files(folder)] == ["shot_noise-2.npy"]
    assert np.array_equal(np.load(files(folder)[0], allow_pickle=False), made)


def test_other_images_versions_or_severities_are_kept_apart(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    corrupted_images(PIXELS, num_conditions=1).under("contrast", 1)
    corrupted_images(PIXELS, num_conditions=1).under("contrast", 2)
    corrupted_images(PIXELS[:4], num_conditions=1).under("contrast", 1)
    monkeypatch.setattr(corruption_cache, "corruption_versions", lambda: {"maker": "2.0"})
    corrupted_images(PIXELS, num_conditions=1).under("contrast", 1)
    assert len(files(folder)) == 4


def test_images_do_not_depend_on_the_set_that_they_are_in() -> None:
    whole = corrupted_images(PIXELS, num_conditions=1).under("impulse_noise", 4)
    part = corrupted_images(PIXELS[[3, 1]], num_conditions=1).under("impulse_noise", 4)
    assert np.array_equal(part, whole[[3, 1]])


DAMAGE = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[:-40],
    "longer": lambda data: data + b"x",
    "a changed pixel": lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
    "a changed header": lambda data: data.replace(b"(5,", b"(6,"),
    "an endless header": lambda data: data.replace(b"(5, 1, 28, 28)", b"(5000000000000"),
    "no header": lambda data: b"\x80\x04" + data[2:],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    images = corrupted_images(PIXELS, num_conditions=1)
    made = images.under("contrast", 3)
    (path,) = files(folder)
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    calls = made_again(monkeypatch)
    assert np.array_equal(images.under("contrast", 3), made)
    assert len(calls) == len(PIXELS)
    assert np.array_equal(images.under("contrast", 3), made)
    assert len(calls) == len(PIXELS)


def test_pickles_are_not_read(folder: Path) -> None:
    images = corrupted_images(PIXELS, num_conditions=1)
    made = images.under("contrast", 3)
    (path,) = files(folder)
    np.save(path, np.array([{"an": "object"}], dtype=object), allow_pickle=True)
    assert np.array_equal(images.under("contrast", 3), made)


def test_a_folder_that_cannot_be_used_costs_the_time_only(folder: Path) -> None:
    folder.write_text("a file in its place")
    with pytest.warns(UserWarning, match="cannot be kept .* ADVPROP_CACHE"):
        found = corrupted_images(PIXELS, num_conditions=1).under("contrast", 1)
    assert found.shape == PIXELS.shape


def test_sets_larger_than_half_of_the_free_disk_are_not_kept(folder: Path) -> None:
    images = corrupted_images(PIXELS, num_conditions=10**12)
    with pytest.warns(UserWarning, match=r"GB are free.*--limit"):
        images.under("contrast", 1)
    assert not files(folder)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ADVPROP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "advprop"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "advprop"
