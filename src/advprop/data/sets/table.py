"""Load images with several labels each from a table: a CSV file with a column for each label."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from advprop.data.listing.classes import shortened
from advprop.data.listing.sharing import sources_in_words
from advprop.data.listing.split_names import SPLIT_NAMES, split_name
from advprop.data.preprocessing import Preprocessing
from advprop.data.sets.folders import FileSplit
from advprop.data.splits import ImageData, Origin
from advprop.data.view import View, check_splits, image_data


@dataclass(frozen=True, kw_only=True, eq=False)
class TableSplit(FileSplit):
    """Images in files; `files` are their paths as the table has them."""

    per_image: ClassVar = ("paths", "files")

    files: tuple[str, ...]

    def hashed_names(self) -> list[str]:
        """Return the paths of the table, which stay the same if the folder is moved."""
        return list(self.files)


_VALUES = {1.0: 1.0, 0.0: 0.0, -1.0: torch.nan}


def load_table(
    table: str | Path,
    view: View,
    *,
    root: str | Path | None = None,
    image_column: str | None = None,
    label_columns: Sequence[str] = (),
    split_column: str = "split",
) -> ImageData:
    """Load the images that a CSV file lists, with a column for each label, as CheXpert has it.

    A label is 1 (present), 0 (absent), or unknown: empty, or -1 (uncertain). `image_column` (None:
    the first) holds paths, relative to `root` (None: the table's folder). `label_columns` default
    to all columns that hold nothing but such values, and some 0 or 1. Rows without a known label
    are skipped. `split_column` holds each row's split in the words that folders use; without it, or
    without validation rows, splits are taken from the training rows by a hash of the paths.

    Raises OSError if the table cannot be read; ValueError if it has no rows or labels, lacks a
    column, has other values or an image twice, or as `image_data` does.
    """
    table = Path(table)
    columns = _read(table)
    if split_column not in {*columns, "split"}:  # only the default may be missing
        raise ValueError(f"{table} has no column {split_column}; it has {shortened(columns)}")
    image_column = image_column or next(iter(columns))
    names = tuple(label_columns) or _label_columns(columns, {image_column, split_column})
    if not names:
        raise ValueError(
            f"{table} has no column of labels, which are 1, 0, -1 or empty: name some, as in "
            "--set data.label_columns=edema,fracture"
        )
    whole = _listed(table, columns, root, image_column, names, view.preprocessing)
    labelled = _labelled(whole)
    unlabelled = len(whole) - len(labelled)
    rows = _rows(table, columns.get(split_column), labelled)
    splits = {part: whole.taken(positions) for part, positions in rows.items()}
    given = {part: f'rows "{part}" of {table.name}' for part in splits}
    return image_data(
        splits,
        view,
        name=table.stem,
        class_names=names,
        origin=Origin(
            splits=sources_in_words(
                given if len(given) > 1 else {"train": table.name}, "image paths"
            ),
            passed_over={"rows without a known label": unlabelled} if unlabelled else {},
        ),
    )


def load_test_table(
    table: Path, *, label_names: Sequence[str], preprocessing: Preprocessing
) -> TableSplit:
    """Load all images of a CSV file with a column for each of `label_names`, to test a model.

    The first column holds paths, relative to the table's folder; rows without a known label are
    skipped. Raises OSError or ValueError as `load_table` does, ValueError too if all are skipped.
    """
    columns = _read(table)
    whole = _listed(table, columns, None, next(iter(columns)), label_names, preprocessing)
    if not (labelled := _labelled(whole)):
        raise ValueError(f"{table} has no row with a known label among {shortened(label_names)}")
    split = whole.taken(labelled)
    check_splits(split)
    return split


def _listed(
    table: Path,
    columns: Mapping[str, Sequence[str]],
    root: str | Path | None,
    image_column: str,
    names: Sequence[str],
    preprocessing: Preprocessing,
) -> TableSplit:
    """Return all rows, also those without a known label."""
    if absent := [name for name in (image_column, *names) if name not in columns]:
        raise ValueError(f"{table} has no column {shortened(absent)}; it has {shortened(columns)}")
    files = columns[image_column]
    if double := [file for file, count in Counter(files).items() if count > 1]:
        raise ValueError(f"{table} has {len(double)} images twice ({shortened(double)})")
    return TableSplit(
        files=tuple(files),
        paths=tuple(os.path.join(root or table.parent, file) for file in files),
        labels=torch.stack([_labels(table, name, columns[name]) for name in names], dim=1),
        preprocessing=preprocessing,
    )


def _labelled(split: TableSplit) -> list[int]:
    known: list[int] = (~split.labels.isnan()).any(dim=1).nonzero().flatten().tolist()
    return known


def _read(table: Path) -> dict[str, list[str]]:
    """Return the columns of a CSV file by name."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = [row for row in csv.reader(file) if row]
    except (csv.Error, UnicodeDecodeError, IsADirectoryError) as error:
        raise ValueError(f"{table}: no CSV file in UTF-8 ({error})") from None
    except ValueError:
        raise ValueError(f"{table} is empty: it needs a header and a row for each image") from None
    if len(header) == 1:
        raise ValueError(f"{table} has one column, {header[0]}: separate columns by commas")
    if len(set(header)) < len(header):
        double = [name for name, count in Counter(header).items() if count > 1]
        raise ValueError(f"{table} has two columns {shortened(double)}: rename one")
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(
                f"{table}: row {number} has {len(row)} cells, the header {len(header)}"
            )
    if not rows:
        raise ValueError(f"{table} has a header and no rows: a row for each image is needed")
    columns = zip(header, *rows, strict=True)
    return {name: [cell.strip() for cell in cells] for name, *cells in columns}


def _label_columns(columns: Mapping[str, Sequence[str]], others: set[str]) -> tuple[str, ...]:
    values = {name: {_value(cell) for cell in set(cells)} for name, cells in columns.items()}
    return tuple(
        name
        for name, found in values.items()
        if name not in others and None not in found and found & {0.0, 1.0}
    )


def _value(cell: str) -> float | None:
    """Return the label in a cell, NaN if unknown, or None if it is none."""
    if not cell:
        return torch.nan
    try:
        return _VALUES.get(float(cell))
    except ValueError:
        return None


def _labels(table: Path, name: str, cells: Sequence[str]) -> Float[Tensor, " rows"]:
    values = {cell: _value(cell) for cell in set(cells)}
    if wrong := sorted(cell for cell, value in values.items() if value is None):
        raise ValueError(
            f"{table}: column {name} has {shortened(wrong)}: labels are 1, 0, or unknown (empty or "
            "-1)"
        )
    return torch.tensor([values[cell] for cell in cells])


def _rows(table: Path, cells: Sequence[str] | None, labelled: list[int]) -> dict[str, list[int]]:
    """Return which of the `labelled` rows each split has; "train" has all without a column."""
    if cells is None:
        return {"train": labelled}
    parts = {cell: split_name(cell) for cell in set(cells)}
    if wrong := sorted(cell or '""' for cell, part in parts.items() if part is None or part.rest):
        words = ", ".join(words[0] for words in SPLIT_NAMES.values())
        raise ValueError(f"{table} has rows of split {shortened(wrong)}: write {words}")
    found: dict[str, list[int]] = {}
    for row in labelled:
        if (part := parts[cells[row]]) is not None:
            found.setdefault(part.split, []).append(row)
    if "train" not in found:
        raise ValueError(f"{table} has no rows of split train with a known label")
    return {part: found[part] for part in SPLIT_NAMES if part in found}
