"""A perturbation for each training image, kept from epoch to epoch."""

from __future__ import annotations

import math
import secrets
import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from advprop.methods.kept.encoding import Encoding, Precision
from advprop.methods.kept.mapped_file import ID_BYTES, damaged, map_file
from advprop.methods.kept.seals import Entries

_PAGE = 4096


class PerturbationStore:
    """Perturbations of `shape` (channels, height, width) for `num_images` images, two for each.

    Each is stored with the epoch that wrote it. In epoch e an image reads its newest perturbation
    from before e, and overwrites one from e or later, else the older of the two. So a run that is
    killed at any moment and resumes in epoch e, or at its end, reads what it read before, without a
    copy of the store in its checkpoints. A run that goes back further may find perturbations
    overwritten, and gets a warning. Without epochs (None), each use of an image is its next epoch.

    `encoding` converts values. The store lies in memory or, with `path`, in a file, which is
    created at the first use. Several processes of one machine may use a `shared` one, but not write
    to an image in the same step. Reading a damaged entry (each has a checksum) raises OSError.
    """

    def __init__(
        self,
        *,
        num_images: int,
        shape: tuple[int, int, int],
        epsilon: float,
        precision: Precision = "int8",
        seed: int = 0,
        path: Path | None = None,
        shared: bool = False,
    ) -> None:
        self.identity = {
            "num_images": num_images,
            "shape": list(shape),
            "epsilon": epsilon,
            "precision": precision,
            "seed": seed,
        }
        self.num_images, self.shape, self.path, self.shared = num_images, shape, path, shared
        self.encoding = Encoding(epsilon=epsilon, precision=precision)
        self._held: tuple[np.ndarray, Tensor, torch.Event | None, int | None] | None = None
        self._has_warned = False

    @property
    def num_bytes(self) -> int:
        """Return the size of all perturbations and checksums in bytes."""
        return self._end + 2 * 16 * self.num_images

    def read(
        self, indices: Int[Tensor, " batch"], epoch: int | None
    ) -> tuple[Tensor, Int[Tensor, " new"]]:
        """Return the stored values, encoded, and the rows of images that were never written.

        Raises ValueError for an index beyond `num_images`.
        """
        if self._held is not None and (epoch is None or epoch != self._held[-1]):
            self.settle()  # an epoch must read what earlier ones wrote
        images = self._checked(indices)
        written, now = self._written(images, epoch)
        earlier = written < now[:, None]
        slots = np.where(earlier, written, -1).argmax(axis=1)
        lost = ~earlier.any(axis=1)
        if epoch and lost.any():
            self._warn_of_lost(int(lost.sum()), epoch)
        new = lost | (written[np.arange(len(images)), slots] == 0)
        values = self._entries.read(images, slots, written=~new)
        return torch.from_numpy(values), torch.from_numpy(new.nonzero()[0])

    def write(
        self,
        indices: Int[Tensor, " batch"],
        perturbations: Float[Tensor, "batch channels height width"],
        epoch: int | None,
    ) -> None:
        """Store `perturbations` for later epochs; if an image occurs twice, the last one stays.

        Perturbations on a GPU are written at the next `write` or `settle` only, so that the host
        need not wait for the GPU now. A `shared` store writes at once, since the first process's
        checkpoint relies on the writes of all.
        """
        images, values = self._checked(indices), self.encoding.encoded(perturbations)
        late = values.is_cuda and not self.shared
        arriving = values.to("cpu", non_blocking=late)  # if late, into pinned memory
        sent = torch.Event(values.device) if late else None
        if sent is not None:
            sent.record()
        self.settle()
        self._held = images, arriving, sent, epoch
        if sent is None:
            self.settle()

    def settle(self) -> None:
        """Write the perturbations that are held back."""
        if self._held is None:
            return
        images, values, sent, epoch = self._held
        self._held = None
        if sent is not None:
            sent.synchronize()
        written, now = self._written(images, epoch)
        later = (written >= now[:, None]).sum(axis=1)
        slots = np.where(later == 1, written.argmax(axis=1), written.argmin(axis=1))
        self._entries.write(images, slots, now, values.numpy())

    def flush(self) -> None:
        """Write everything to the disk, so that a crash of the machine loses nothing."""
        self.settle()
        if isinstance(self._bytes, np.memmap):
            self._bytes.flush()

    def state_dict(self) -> dict[str, Any]:
        """Return the store's identity, and its contents or the file that has them."""
        self.flush()
        if self.path is not None:
            found = {"id": self._id, **self._entries.extent()}
            return {"identity": self.identity, "file": self.path.name, **found}
        return {
            "identity": self.identity,
            "epochs": torch.from_numpy(self._entries.epochs().astype(np.int32)),
            "values": torch.from_numpy(self._entries.values.copy()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state_dict` gave.

        Raises ValueError for another store, OSError if its file is missing, damaged or another one.
        """
        self.settle()
        saved = state["identity"]
        if saved != self.identity:
            raise ValueError(f"perturbations of {saved} do not fit those of {self.identity}")
        if "file" not in state:
            self._entries.values[:] = state["values"].numpy()
            self._entries.seal(state["epochs"].numpy())
        elif self.path is None:
            raise ValueError(
                f'the perturbations are in a file, "{state["file"]}": prepare the method with the '
                "folder that it is in"
            )
        elif not self.path.exists():
            raise FileNotFoundError(
                f"{self.path}: the perturbations that training goes on from are gone: put the file "
                "back, or train into another folder"
            )
        else:
            self._check_file(self.path, state)

    def _check_file(self, path: Path, state: Mapping[str, Any]) -> None:
        """Raise OSError if the file is older than the checkpoint; after a kill it may be newer."""
        if not path.stat().st_size:
            raise damaged(path, "it is empty")
        found = self._entries.extent()
        if self._id != state.get("id", self._id):
            raise damaged(path, "it is another than the checkpoint was written with")
        if any(found[name] < state.get(name, 0) for name in found):
            raise damaged(path, "it is older than the checkpoint, or a part of it is lost")

    def _checked(self, indices: Tensor) -> np.ndarray:
        images: np.ndarray = indices.cpu().numpy()
        beyond = images[(images < 0) | (images >= self.num_images)]
        if len(beyond):
            raise ValueError(
                f"image {beyond[0]}: perturbations are kept for {self.num_images} images, 0 to "
                f"{self.num_images - 1}; prepare the method for all of them"
            )
        return images

    def _written(self, images: np.ndarray, epoch: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the epochs of both entries of each image (0: never), and the present one."""
        written = self._entries.epochs(images)
        now = written.max(axis=1) + 1 if epoch is None else np.full(len(images), epoch + 1)
        return written, now

    def _warn_of_lost(self, count: int, epoch: int) -> None:
        if not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"training goes on in epoch {epoch + 1}, further back than perturbations are kept: "
                f"those of {count} images of this batch, and of others to come, were written over "
                "and begin anew. The run will not equal an undisturbed one",
                stacklevel=4,
            )

    @cached_property
    def _bytes(self) -> np.ndarray:
        if self.path is None:
            return np.zeros(self.num_bytes, dtype=np.uint8)
        return map_file(
            self.path,
            num_bytes=self.num_bytes,
            identity=self.identity,
            header=_PAGE,
            earlier=self._unsealed,
        )

    @cached_property
    def _entries(self) -> Entries:
        values = self._bytes[self._offset : self._unsealed].view(self._dtype)
        entries = Entries(
            values=values.reshape(self.num_images, 2, *self.shape),
            seals=self._bytes[self._end :].view(np.uint64).reshape(2, self.num_images, 2),
            path=self.path,
        )
        number = self._bytes[_PAGE - ID_BYTES : _PAGE]
        if (number == ord(" ")).all():  # made by the version without checksums
            old = self._bytes[_PAGE : _PAGE + 8 * self.num_images].view(np.int32)
            entries.seal(old.reshape(self.num_images, 2))
            number[:] = np.frombuffer(secrets.token_bytes(ID_BYTES), np.uint8)
        return entries

    @property
    def _id(self) -> str:
        return self._bytes[_PAGE - ID_BYTES : _PAGE].tobytes().hex()

    @property
    def _offset(self) -> int:
        return _PAGE * (1 + -(-8 * self.num_images // _PAGE))

    @property
    def _unsealed(self) -> int:
        """Return the end of the values, at which files without checksums end."""
        return self._offset + 2 * self.num_images * math.prod(self.shape) * self._dtype.itemsize

    @property
    def _end(self) -> int:
        return -(-self._unsealed // 8) * 8

    @property
    def _dtype(self) -> np.dtype:
        return np.dtype(self.encoding.precision)
