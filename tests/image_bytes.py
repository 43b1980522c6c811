"""Image files made by hand, without Pillow."""

from __future__ import annotations

import struct
import zlib

import numpy as np

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6  # PNG's colour types


def packed(rows: np.ndarray, bits: int) -> np.ndarray:
    """Rows of samples of so many bits, as bytes."""
    each = rows[..., None] >> np.arange(bits - 1, -1, -1) & 1
    return np.packbits(each.reshape(len(rows), -1).astype(np.uint8), axis=1)


def png(rows: np.ndarray, colour_type: int, bits: int = 0, **extra: bytes) -> bytes:
    """A PNG made by hand from rows of samples [H, W(, samples)], uint8, uint16 or of `bits`."""
    height, width = rows.shape[:2]
    rows = packed(rows, bits) if 0 < bits < 8 else rows
    bits = bits or 8 * rows.dtype.itemsize
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + row.astype(rows.dtype.newbyteorder(">")).tobytes() for row in rows)
    chunks = {"IHDR": header, **extra, "IDAT": zlib.compress(lines), "IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data))
        + name.encode()
        + data
        + struct.pack(">I", zlib.crc32(name.encode() + data))
        for name, data in chunks.items()
    )


def random_samples(*shape: int, top: int = 256) -> np.ndarray:
    dtype = np.uint8 if top == 256 else np.uint16
    return np.random.default_rng(0).integers(0, top, shape, dtype=dtype)


def tiff(
    rows: np.ndarray, bits: int, photometric: int, compression: int = 1, order: str = "<"
) -> bytes:
    """A grey TIFF made by hand; `order` ">" is big-endian."""
    whole = rows.astype(f"{order}u{max(bits // 8, 1)}")
    data = packed(rows, bits).tobytes() if bits in (2, 4, 12) else whole.tobytes()
    data = zlib.compress(data) if compression == 8 else data
    tags = {256: rows.shape[1], 257: len(rows), 258: bits, 259: compression, 262: photometric}
    tags |= {273: 8 + 2 + 12 * 9 + 4, 277: 1, 278: len(rows), 279: len(data)}
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4) + data
