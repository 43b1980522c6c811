"""Read the names of the classes in shards, and check the labels against them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from advprop.data.listing.classes import shortened
from advprop.data.shards.finding import CLASSES_NAME
from advprop.data.shards.split import ShardSplit
from advprop.files.parsing import decoded, parse_json


def read_class_names(path: str | Path | None, folder: Path, train: ShardSplit) -> tuple[str, ...]:
    """Return the names in `path` or in a file in `folder`; else the numbers in `train.labels`.

    Raises OSError if `path` is missing, and ValueError for fewer than 2 names or gaps in numbers.
    """
    beside = [folder / CLASSES_NAME, folder / "classes.txt"]
    found = Path(path) if path else next((file for file in beside if file.exists()), None)
    if found:
        names = _read_names(found)
    else:
        present = set(train.labels.tolist())
        # at most ten are listed: a single wrong label may be very large
        missing = list(zip(range(10), _gaps(present), strict=False))
        if missing:
            raise ValueError(
                f"labels go up to {max(present)}, but there are no images of class "
                f"{shortened(str(label) for _, label in missing)}: if that is right, name the "
                f"classes in {beside[1]}, one a line, starting with class 0"
            )
        names = [str(label) for label in range(len(present))]
    if len(names) < 2:
        raise ValueError(f"{found or folder} has {len(names)} classes: at least 2 are needed")
    return tuple(names)


def check_labels(splits: Mapping[str, ShardSplit], class_names: Sequence[str]) -> None:
    """Raise ValueError, with a count, if labels of a split are outside of the classes."""
    for name, split in splits.items():
        outside = (split.labels >= len(class_names)).nonzero().flatten().tolist()
        if outside:
            raise ValueError(
                f"{len(outside)} labels of data.{name} are outside of the {len(class_names)} "
                f"classes, as {split.labels[outside[0]]} of {split.name(outside[0])}: they count "
                f"from 0 to {len(class_names) - 1}; correct them or the names of the classes"
            )


def _gaps(labels: set[int]) -> Iterator[int]:
    return (label for label in range(max(labels)) if label not in labels)


def _read_names(path: Path) -> list[str]:
    try:
        text = decoded(path.read_bytes())
        if path.suffix != ".json":
            return [line.strip() for line in text.splitlines() if line.strip()]
        names = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): write a list of names") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path} must hold a list of names, starting with class 0")
    return names
