"""Every kind of image file against pixels that were worked out without Pillow."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from image_bytes import GREY, GREY_ALPHA, PALETTE, RGB, RGBA, png, random_samples, tiff
from PIL import Image

from advprop.data.reading import header_problem, read_image


def read(tmp_path: Path, content: bytes, channels: int = 3, name: str = "image.png") -> np.ndarray:
    path = tmp_path / name
    path.write_bytes(content)
    return np.asarray(read_image(path, channels=channels)).astype(int)


def luminance(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114])


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def assert_close(actual: np.ndarray, expected: np.ndarray, *, within: float = 1.0) -> None:
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= within


def test_rgb_is_read_exactly_and_as_luminance_where_one_channel_is_asked_for(tmp_path):
    pixels = random_samples(5, 7, 3)
    assert (read(tmp_path, png(pixels, RGB)) == pixels).all()
    assert_close(read(tmp_path, png(pixels, RGB), channels=1), luminance(pixels))


def test_grey_is_read_exactly_and_three_times_where_rgb_is_asked_for(tmp_path):
    pixels = random_samples(5, 7)
    assert (read(tmp_path, png(pixels, GREY), channels=1) == pixels).all()
    assert (read(tmp_path, png(pixels, GREY)) == pixels[..., None].repeat(3, -1)).all()


def test_transparent_pixels_lie_over_white(tmp_path):
    pixels = random_samples(5, 7, 4)
    pixels[0, 0] = (0, 0, 0, 0)  # black as stored, white as seen
    expected = over_white(pixels[..., :3], pixels[..., 3])
    assert_close(read(tmp_path, png(pixels, RGBA)), expected)
    assert_close(read(tmp_path, png(pixels, RGBA), channels=1), luminance(expected), within=2)


def test_grey_with_transparency_lies_over_white(tmp_path):
    pixels = random_samples(5, 7, 2)
    expected = over_white(pixels[..., :1].repeat(3, -1), pixels[..., 1])
    assert_close(read(tmp_path, png(pixels, GREY_ALPHA)), expected)
    assert_close(read(tmp_path, png(pixels, GREY_ALPHA), channels=1), expected[..., 0])


@pytest.mark.parametrize("transparent", [False, True])
def test_palette_is_looked_up_and_its_transparent_colours_are_white(tmp_path, transparent):
    palette = random_samples(16, 3)
    numbers = random_samples(5, 7) % 16
    alpha = np.full(16, 255)
    extra = {"PLTE": palette.tobytes()}
    if transparent:
        alpha[:4] = (0, 80, 160, 255)
        extra["tRNS"] = bytes(alpha[:4].tolist())
    expected = over_white(palette[numbers], alpha[numbers])
    assert_close(read(tmp_path, png(numbers, PALETTE, **extra)), expected, within=1)


def test_one_transparent_colour_of_an_rgb_file_is_white(tmp_path):
    pixels = random_samples(5, 7, 3)
    key = struct.pack(">HHH", *pixels[2, 3].tolist())
    expected = pixels.copy()
    expected[(pixels == pixels[2, 3]).all(-1)] = 255
    assert (read(tmp_path, png(pixels, RGB, tRNS=key)) == expected).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_cut_off(tmp_path, channels):
    pixels = random_samples(5, 7, top=65536)
    pixels[0, :3] = (0, 65535, 256)
    actual = read(tmp_path, png(pixels, GREY), channels=channels)
    expected = pixels / 65535 * 255
    assert_close(actual if channels == 1 else actual[..., 2], expected, within=0.51)


def test_sixteen_bits_in_a_netpbm_file(tmp_path):
    pixels = random_samples(4, 6, top=65536)
    content = b"P5 6 4 65535\n" + pixels.astype(">u2").tobytes()
    assert_close(read(tmp_path, content, channels=1, name="image.pgm"), pixels / 257, within=0.51)


@pytest.mark.parametrize("ending", ["tiff", "jpg"])
def test_cmyk_becomes_the_colours_of_the_inks(tmp_path, ending):
    inks = np.full((16, 16, 4), (200, 40, 0, 60), dtype=np.uint8)
    inks[:8] = (0, 0, 0, 255)  # all black ink
    path = tmp_path / f"image.{ending}"
    Image.fromarray(inks, mode="CMYK").save(path, quality=100)
    covered = inks / 255
    expected = 255 * (1 - covered[..., :3]) * (1 - covered[..., 3:])
    assert_close(np.asarray(read_image(path, channels=3)).astype(int), expected, within=3)


# EXIF's orientation: what to do with the stored rows to see the picture
UPRIGHT = {
    1: lambda stored: stored,
    2: lambda stored: stored[:, ::-1],
    3: lambda stored: stored[::-1, ::-1],
    4: lambda stored: stored[::-1],
    5: lambda stored: stored.transpose(1, 0, 2),
    6: lambda stored: stored[::-1].transpose(1, 0, 2),
    7: lambda stored: stored[::-1, ::-1].transpose(1, 0, 2),
    8: lambda stored: stored.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_turned_files_stand_upright(tmp_path, orientation):
    stored = random_samples(4, 6, 3)
    # big-endian TIFF with one entry: tag 0x0112, a short, one of it
    exif = b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    actual = read(tmp_path, png(stored, RGB, eXIf=exif))
    assert (actual == UPRIGHT[orientation](stored)).all()


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_a_mistyped_tag_beside_the_orientation_is_no_reason_to_refuse(tmp_path, orientation):
    """A resolution (0x011A) in letters, as some cameras' software writes it."""
    path = tmp_path / "image.png"
    stored = random_samples(4, 6, 3)
    entries = struct.pack(">HHIHHHHI4s", 0x0112, 3, 1, orientation, 0, 0x011A, 2, 4, b"72\0\0")
    exif = b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)
    path.write_bytes(png(stored, RGB, eXIf=exif))
    actual = np.asarray(read_image(path, channels=3)).astype(int)
    assert (actual == UPRIGHT[orientation](stored)).all()


def test_damaged_exif_beside_good_pixels_is_no_reason_to_refuse(tmp_path):
    path = tmp_path / "image.jpg"
    damaged = b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01"
    Image.new("RGB", (8, 6), (10, 200, 30)).save(path, exif=damaged)
    pixels = np.asarray(read_image(path, channels=3)).astype(int)
    assert_close(pixels, np.broadcast_to([10, 200, 30], (6, 8, 3)), within=3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty, damaged or not an image"),
        (b"no image at all", "empty, damaged or not an image"),
        (png(random_samples(50, 50, 3), RGB)[:900], "truncated|repair"),
    ],
)
def test_unreadable_files_are_named(tmp_path, content, reason):
    with pytest.raises(ValueError, match=rf"broken\.png: .*({reason})"):
        read(tmp_path, content, name="broken.png")


def test_truncated_jpeg_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(random_samples(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    assert header_problem(path) is None  # its beginning is in order
    with pytest.raises(ValueError, match=r"cut\.jpg: .*truncated"):
        read_image(path, channels=3)


@pytest.mark.parametrize("times", [1.5, 4])
def test_images_that_would_fill_the_memory_are_named(tmp_path, monkeypatch, times):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(100 / times))
    with pytest.raises(ValueError, match=r"huge\.png: more than \d+ pixels; scale it down"):
        read(tmp_path, png(random_samples(10, 10, 3), RGB), name="huge.png")


def test_floats_and_32_bits_are_refused_not_guessed_at(tmp_path):
    for values, reason in (
        (np.ones((3, 3), dtype=np.float32), "floats without a known range"),
        (np.full((3, 3), 70000, dtype=np.int32), "32 bits without a known range"),
        (np.full((3, 3), 200, dtype=np.int32), "32 bits without a known range"),
    ):
        path = tmp_path / "image.tiff"
        Image.fromarray(values).save(path)
        with pytest.raises(ValueError, match=reason):
            read_image(path, channels=3)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.png: there is no such file"):
        read_image(tmp_path / "none.png", channels=3)
    with pytest.raises(ValueError, match="it is a folder"):
        read_image(tmp_path, channels=3)


def test_header_problem_tells_good_from_bad(tmp_path):
    good, bad = tmp_path / "good.png", tmp_path / "bad.png"
    good.write_bytes(png(random_samples(3, 3), GREY))
    bad.write_bytes(b"\x89PN")
    assert header_problem(good) is None
    assert (
        header_problem(bad)
        == f"{bad}: empty, damaged or not an image that Pillow reads; repair or delete it"
    )


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("channels", [1, 3])
def test_one_transparent_grey_is_white_at_every_depth(tmp_path, bits, channels):
    top = 2**bits - 1
    rows = np.random.default_rng(0).integers(0, top + 1, (4, 8))
    rows = rows.astype(np.uint16 if bits == 16 else np.uint8)
    key = int(rows[1, 2])
    content = png(rows, GREY, bits, tRNS=struct.pack(">H", key))
    actual = read(tmp_path, content, channels=channels)
    expected = np.where(rows == key, 255.0, rows / top * 255)
    assert_close(actual if channels == 1 else actual[..., 0], expected)


def test_one_transparent_colour_of_16_bits_is_white(tmp_path):
    pixels = random_samples(5, 7, 3, top=65536)
    key = struct.pack(">HHH", *pixels[2, 3].tolist())
    expected = (pixels >> 8).astype(int)
    expected[2, 3] = 255
    assert_close(read(tmp_path, png(pixels, RGB, tRNS=key)), expected)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("compression", [1, 8], ids=["plain", "deflate"])
@pytest.mark.parametrize("photometric", [0, 1], ids=["0 is white", "0 is black"])
def test_tiffs_where_0_is_white_are_no_negatives(tmp_path, bits, compression, photometric):
    rows = random_samples(6, 8, top=2**bits)
    actual = read(tmp_path, tiff(rows, bits, photometric, compression), 1, "image.tif")
    share = rows / (2**bits - 1)
    assert_close(actual, 255 * (share if photometric else 1 - share))


def test_tiffs_of_12_bits_are_as_bright_as_they_say(tmp_path):
    rows = random_samples(6, 8, top=4096)
    rows[0, :2] = 0, 4095
    assert_close(read(tmp_path, tiff(rows, 12, 1), 1, "image.tif"), rows / 4095 * 255)


@pytest.mark.parametrize(("bits", "order"), [(16, ">"), (12, "<")])
def test_tiffs_that_pillow_does_not_know_are_not_called_no_image(tmp_path, bits, order):
    content = tiff(random_samples(6, 8, top=2**bits), bits, 0, order=order)
    with pytest.raises(ValueError, match="damaged or not an image that Pillow reads"):
        read(tmp_path, content, 1, "image.tif")
