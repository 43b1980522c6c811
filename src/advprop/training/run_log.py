"""The log of a run, `metrics.jsonl`: one JSON object for each epoch, with its alarms."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advprop.files.atomic import write_atomically, writing
from advprop.files.parsing import Count, Number, Part, Share, parse_json, read_part
from advprop.training.position import Position

_SMALLEST_PERTURBATION = 1e-6  # mean change of a value in [0, 1]; the weakest attack has 1e-3
_GO_ON = "make room or give access, then go on with --resume"


def alarms(means: Mapping[str, Any], *, num_images: int) -> list[str]:
    """Return warnings about an epoch's means (`EpochTotals.means`) over `num_images` images.

    One reports a label leak, if the accuracy is higher on adversarial than on clean images: a model
    trained on single-step attacks on the true label may read it off the perturbation or the batch
    statistics (Kurakin et al. 2017, Mei et al. 2022 section 3.2). One reports zero perturbations.
    """
    found = []
    perturbation = means.get("perturbation")
    if perturbation is not None and perturbation < _SMALLEST_PERTURBATION:
        found.append(
            f"the mean perturbation is {perturbation:.1e}: the attack does nothing; look at "
            "epsilon and step size (fractions of [0, 1]), and at mixed_precision"
        )
    clean, adversarial = means.get("clean"), means.get("adversarial")
    if clean and adversarial:
        found += _label_leak(clean, adversarial, num_images)
    return found


def _label_leak(
    clean_means: Mapping[str, float], adversarial_means: Mapping[str, float], num_images: int
) -> list[str]:
    clean, adversarial = clean_means["accuracy"], adversarial_means["accuracy"]
    numbers = [num_images * means.get("share", 1.0) for means in (clean_means, adversarial_means)]
    variance = max(clean * (1 - clean), 1e-4)
    # 4 standard deviations, not 3: images of a batch are normalised together, so they are no
    # independent samples, least of all while a net that has just begun gives them all one class
    chance = 4 * math.sqrt(variance * sum(1 / number for number in numbers))
    if adversarial - clean <= max(0.02, chance):
        return []
    return [
        f"training accuracy on adversarial images ({adversarial:.1%}) exceeds that on clean ones "
        f"({clean:.1%}): the labels leak; aim at random_other_class, attack with a random start, "
        "or see the pitfalls of the method's card"
    ]


@dataclass(frozen=True)
class RunLog:
    """The log of one run, in order of steps."""

    path: Path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Append one entry; raises WriteError if the file cannot be written."""
        with writing(self.path, remedy=_GO_ON), self.path.open("a") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Return all intact entries; a damaged line, or one truncated by a kill, is left out."""
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
    """Parse a line that `epoch_entry` made; return None for any other."""
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
    """Return the log's entry for the epoch that has just ended; `means` are from `EpochTotals`."""
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
