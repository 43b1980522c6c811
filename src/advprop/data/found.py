"""Facts about a data set, shown before a run: classes, images of each split, skipped files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from advprop.data.listing.classes import shortened
from advprop.data.splits import ImageData, ImageSplit
from advprop.files.parsing import printable

FEW_IMAGES = 10
"""Classes with fewer training images are reported; as a rule of thumb they are hardly learnt."""

_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Found:
    """Facts about a data set, in bounded size; docs/results.md describes each."""

    name: str
    num_classes: int
    first_classes: tuple[str, ...]
    images: Mapping[str, int]
    sources: Mapping[str, str]
    fewest_images: int
    most_images: int
    few_below: int
    num_few: int
    few: Mapping[str, int]
    without: Mapping[str, int]
    passed_over: Mapping[str, int]
    notes: tuple[str, ...]
    multi_label: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain data."""
        return {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(self).items()}

    def lines(self) -> list[str]:
        """Return the facts as a few printable lines; special characters in names are escaped."""
        names = shortened(self.first_classes, len(self.first_classes))
        more = ", ..." if self.num_classes > len(self.first_classes) else ""
        splits = [
            f"{count:,} {'training' if split == 'train' else split} images"
            + (f" ({self.sources[split]})" if split in self.sources else "")
            for split, count in self.images.items()
        ]
        if "test" not in self.images:
            splits.append("no test images")
        lines = [
            f"{self.name}: {self.num_classes:,} {self._words} ({names}{more}): {', '.join(splits)}",
            *self._few_lines(),
        ]
        if self.passed_over:
            listed = [f"{count:,} {reason}" for reason, count in self.passed_over.items()]
            lines.append(f"skipped: {shortened(listed)}")
        return [printable(line, lines=False) for line in [*lines, *self.notes]]

    @property
    def _words(self) -> str:
        return "labels" if self.multi_label else "classes"

    def _few_lines(self) -> list[str]:
        word, lines = "label" if self.multi_label else "class", []
        if self.num_few:
            listed = [f"{name} {count}" for name, count in self.few.items()]
            more = f", and {self.num_few - len(listed)} more" if self.num_few > len(listed) else ""
            lines.append(
                f"few training images: {', '.join(listed)}{more} (below {self.few_below}, a "
                f"{word} is hardly learnt: add images, or leave the {word} out)"
            )
        lines += [
            f"{count:,} of {self.num_classes:,} {self._words} have no {split} images: nothing will "
            "be said about them"
            for split, count in self.without.items()
        ]
        return lines


def found_in(data: ImageData) -> Found:
    """Return the facts about `data` that are shown before training."""
    splits = {"train": data.train, "validation": data.validation}
    if data.test is not None:
        splits["test"] = data.test
    counts = {split: _images_of_classes(own, data.num_classes) for split, own in splits.items()}
    few = sorted(
        (count, name)
        for name, count in zip(data.class_names, counts["train"], strict=True)
        if count < FEW_IMAGES
    )
    without = {split: own.count(0) for split, own in counts.items() if split != "train"}
    return Found(
        name=data.name,
        num_classes=data.num_classes,
        multi_label=data.multi_label,
        first_classes=data.class_names[:_SHOWN],
        images={split: len(own) for split, own in splits.items()},
        sources={name: data.origin.splits[name] for name in splits if name in data.origin.splits},
        fewest_images=min(counts["train"]),
        most_images=max(counts["train"]),
        few_below=FEW_IMAGES,
        num_few=len(few),
        few={name: count for count, name in few[:_SHOWN]},
        without={split: count for split, count in without.items() if count},
        passed_over=dict(data.origin.passed_over),
        notes=data.origin.notes,
    )


def _images_of_classes(split: ImageSplit, num_classes: int) -> list[int]:
    """Return the number of images of each class, or with each label."""
    labels = split.labels
    if labels.ndim > 1:
        return (labels == 1).sum(dim=0).tolist()
    return torch.bincount(labels, minlength=num_classes).tolist()
