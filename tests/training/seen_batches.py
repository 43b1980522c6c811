"""Trains a run and writes down which images each step sees: what a process of `torchrun` runs.

    torchrun --nproc_per_node 2 seen_batches.py CONFIG.json FOLDER SEEN STEPS

Process R writes SEEN/R.json; the first one sends itself SIGTERM when STEPS steps are done.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from advprop.config import RunConfig
from advprop.config.overrides import read_config
from advprop.runs import train
from advprop.shapes import Batch
from advprop.training.stopping import InterruptedTraining
from advprop.training.trainer import Trainer

Seen = list[tuple[int, int, list[list[Any]]]]


def images_seen(config: RunConfig, folder: Path, *, stop_after: int | None = None) -> Seen:
    """Train or go on; for each step the epoch, its own number and what each image was.

    An image is its index, its copy, a digest of its pixels, and its label.
    """
    seen: Seen = []
    whole_step = Trainer.train_step

    def recorded_step(self: Trainer, batch: Batch, signum: int | None = None) -> None:
        assert batch.indices is not None
        assert batch.copies is not None
        digests = [hashlib.sha256(image.numpy().tobytes()).hexdigest() for image in batch.images]
        columns = (batch.indices.tolist(), batch.copies.tolist(), digests, batch.labels.tolist())
        entry = [list(image) for image in zip(*columns, strict=True)]
        seen.append((self.position.epoch, self.position.step, entry))
        whole_step(self, batch, signum)
        if self.position.step == stop_after:
            signal.raise_signal(signal.SIGTERM)

    with mock.patch.object(Trainer, "train_step", recorded_step):
        try:
            train(config, folder, resume=True, quiet=True)
        except InterruptedTraining:
            assert stop_after is not None
    return seen


if __name__ == "__main__":
    rank = int(os.environ["RANK"])
    steps = int(sys.argv[4]) if rank == 0 else 0
    found = images_seen(read_config(Path(sys.argv[1])), Path(sys.argv[2]), stop_after=steps)
    Path(sys.argv[3], f"{rank}.json").write_text(json.dumps(found))
