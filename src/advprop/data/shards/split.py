"""Images in tar shards, addressed by index: each is one read at a known offset."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from advprop.data.decoding import DecodedSplit
from advprop.data.reading import named_errors, open_image, upright
from advprop.data.shards.scanning import Stamp, stamp_of
from advprop.data.splits import MAX_COMPARED_BYTES
from advprop.randomness import generator_for

_MAX_OPEN = 64  # open files in a process; systems allow at least 256


class ShardFiles:
    """The files of shards, opened when needed; forked processes may share them for `os.pread`."""

    def __init__(self, paths: Sequence[str], stamps: Sequence[Stamp]) -> None:
        self.paths = tuple(paths)
        self._stamps = tuple(stamps)
        self._handles: OrderedDict[int, int] = OrderedDict()  # from least to most recently used

    def open(self, shard: int) -> int:
        """Return the file descriptor of file `shard`, for `os.pread`.

        Raises OSError if the file is missing or has changed since it was indexed.
        """
        if shard not in self._handles:
            if len(self._handles) >= _MAX_OPEN:
                os.close(self._handles.popitem(last=False)[1])
            self._handles[shard] = os.open(self.paths[shard], os.O_RDONLY | os.O_CLOEXEC)
        self._handles.move_to_end(shard)
        handle = self._handles[shard]
        if stamp_of(os.fstat(handle)) != self._stamps[shard]:  # the indexed offsets would be wrong
            raise OSError(
                f"{self.paths[shard]} has changed since it was indexed: start the command again"
            )
        return handle

    def __reduce__(self) -> tuple[Any, ...]:
        return ShardFiles, (self.paths, self._stamps)

    def __del__(self) -> None:
        for handle in self._handles.values():
            os.close(handle)


@dataclass(frozen=True, kw_only=True, eq=False)
class ShardSplit(DecodedSplit):
    """Images in tar shards, read again at each use.

    For each image, `shard_of` is the index of its shard in `files.paths`, `extents` its offset and
    size in bytes, and `keys` its key in the shard (UTF-8). An epoch goes through the shards in a
    random order and mixes at most `shuffle_shards` of them at a time.
    """

    per_image: ClassVar = ("shard_of", "extents", "keys")

    files: ShardFiles
    shard_of: Int[Tensor, " num_images"]
    extents: Int[Tensor, "num_images 2"]
    keys: np.ndarray[Any, Any]
    shuffle_shards: int = 8

    def name(self, index: int) -> str:
        """Return the key and shard of image `index`, as its name in messages."""
        key = self.keys[index].decode(errors="replace")
        return f"{key} in {self.files.paths[self.shard_of[index]]}"

    def read(self, index: int) -> Image.Image:
        """Return image `index`; raises ValueError if it is unreadable, OSError if its shard is."""
        with self._opened(index) as image:
            return upright(image, self.preprocessing.image_shape[0])

    def names(self) -> list[str]:
        """Return the images' shard numbers, which determine the order of an epoch, and keys."""
        shards, keys = self.shard_of.tolist(), self.hashed_names()
        return [f"{shard}/{key}" for shard, key in zip(shards, keys, strict=True)]

    def hashed_names(self) -> list[str]:
        """Return the images' keys, which do not depend on the division into shards."""
        return [key.decode(errors="surrogateescape") for key in self.keys.tolist()]

    def stored(self, index: int) -> bytes:
        """Return the first bytes of the image's file, at most `MAX_COMPARED_BYTES`."""
        offset, size = self.extents[index].tolist()
        handle = self.files.open(int(self.shard_of[index]))
        return os.pread(handle, min(size, MAX_COMPARED_BYTES), offset)

    def stored_size(self, index: int) -> int:
        """Return the size of the image's file in bytes."""
        return int(self.extents[index, 1])

    def header_problem(self, index: int) -> str | None:
        """Return the name of image `index` and its header's fault, or None if there is none."""
        try:
            with self._opened(index):
                return None
        except ValueError as error:
            return str(error)

    @contextmanager
    def _opened(self, index: int) -> Iterator[Image.Image]:
        handle = self.files.open(int(self.shard_of[index]))
        offset, size = self.extents[index].tolist()
        with named_errors(self.name(index)):
            content = os.pread(handle, size, offset)
            with open_image(io.BytesIO(content)) as image:
                yield image

    def epoch_order(self, seed: int, epoch: int) -> Int[Tensor, " num_images"]:
        """Return every index once, int64, in an order that depends on (seed, epoch) alone.

        The shards, in a random order, are divided into groups of at most `shuffle_shards`; the
        shuffled images of one group come before those of the next.
        """
        generator = generator_for(seed, epoch, "order")
        present = self.shard_of.unique()
        num_runs = -(-len(present) // self.shuffle_shards)
        place = torch.empty(len(self.files.paths), dtype=torch.int64)
        place[present] = torch.randperm(len(present), generator=generator)
        shuffled = torch.randperm(len(self), generator=generator)
        run = place[self.shard_of[shuffled]] * num_runs // len(present)
        return shuffled[run.argsort(stable=True)]
