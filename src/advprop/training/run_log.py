"""The log of a run, `metrics.jsonl`: one JSON object for each epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advprop.files.atomic import write_atomically, writing
from advprop.files.parsing import Count, Number, Part, Share, parse_json, read_part
from advprop.training.alarms import alarms
from advprop.training.position import Position

_GO_ON = "make room or give access, then go on with --resume"


@dataclass(frozen=True)
class RunLog:
    """The log of one run; its entries are in the order of steps."""

    path: Path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append one entry; raises WriteError if the file cannot be written."""
        with writing(self.path, remedy=_GO_ON), self.path.open("a") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return all intact entries, without lines that are damaged or were truncated by a kill."""
        if not self.path.exists():
            return []
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        return [entry for line in lines if (entry := _entry(line)) is not None]

    def rewind(self, step: int) -> None:
        """Delete the entries after `step`, so that a resumed run does not log them twice."""
        kept = [entry for entry in self.read() if entry["step"] <= step]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomically(self.path, lambda file: file.write(text.encode()))


class Entry(Part):
    """A line of the log, with the fields that a resumed run and a report need."""

    step: Count
    epoch: Count
    passes: Number
    train: dict[str, dict[str, Number | None]]
    validation_accuracy: Share | None


def _entry(line: str) -> dict[str, Any] | None:
    """Return the entry in a line of the log, or None for any other line."""
    try:
        value: dict[str, Any] = parse_json(line)
        read_part(Entry, value)
    except ValueError:
        return None
    return value


def epoch_entry(
    position: Position,
    means: Mapping[str, Any],
    *,
    passes_per_image: float,
    images_per_epoch: int,
    learning_rate: float,
    validation_accuracy: float | None,
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the log's entry for the epoch that ended at `position`, with `EpochTotals.means`."""
    images = position.epoch * images_per_epoch
    return {
        "step": position.step,
        "epoch": position.epoch,
        "passes": position.epoch * passes_per_image,
        "learning_rate": learning_rate,
        "perturbation": means.get("perturbation"),
        "train": {kind: numbers for kind, numbers in means.items() if kind != "perturbation"},
        "validation_accuracy": validation_accuracy,
        "seconds": round(position.seconds, 3),
        "images_per_second": images / max(position.seconds, 1e-9),
        "alarms": [*alarms(means, num_images=images_per_epoch), *warnings],
    }
