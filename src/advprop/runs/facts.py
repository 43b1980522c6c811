"""Reads and writes facts about a run's data, and the history of changes since it began."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import Field

from advprop.config.run import RunConfig
from advprop.data.found import found_in
from advprop.data.identity import data_facts, find_changes
from advprop.data.splits import ImageData
from advprop.files.json_files import read_json, write_json
from advprop.files.parsing import Count, Part
from advprop.runs.folder import DATA, DataFacts

HISTORY = "history.json"


class SplitFacts(Part):
    """The number, order and checksums of a split's images."""

    num: Count
    order_sha256: str
    checksums: str


class SavedFacts(DataFacts):
    """The facts about a run's images in `data.json`; older runs lack some."""

    images: dict[str, SplitFacts] = Field(default_factory=dict)
    first_weights: str | None = None


class History(Part):
    """The contents of `history.json`: each change as text, with its epoch and step."""

    history: list[dict[str, Any]]


def load_data(config: RunConfig) -> tuple[ImageData, dict[str, Any]]:
    """Return the run's data, and facts about them and about the initial weights.

    Raises FileNotFoundError, with the options that name another place, if images are missing.
    """
    try:
        data = config.data.load(config.seed)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {config.data.places_to_set()} names another") from None
    more = {"found": found_in(data).to_json(), "first_weights": config.model.first_weights()}
    return data, {**data_facts(data), **more}


def write_data_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write to `data.json` the facts that the run's model and resumption need.

    Keeps the saved fact about the initial weights if their file no longer exists.
    """
    known = None
    with suppress(ValueError):  # a damaged file is replaced
        known = saved_facts(folder).get("first_weights")
    write_json(folder / DATA, {**facts, "first_weights": facts.get("first_weights") or known})


def check_same_data(folder: Path, facts: Mapping[str, Any], data: ImageData) -> list[str]:
    """Return the harmless changes of `data`, described by `facts`, since the run began.

    Raises ValueError if the run cannot go on with these data.
    """
    if not (saved := saved_facts(folder)):
        return []
    changes = find_changes(saved, facts, data)
    known, first = (of.get("first_weights") for of in (saved, facts))
    if known and first and known != first:
        changes.fatal.append("model.checkpoint holds other weights")
    if changes.fatal:
        raise ValueError(
            f"{folder}: the data have changed since the run began "
            f"({'; '.join(changes.fatal)[:500]}): put them back, or train into another --out"
        )
    return changes.harmless


def saved_facts(folder: Path) -> dict[str, Any]:
    """Return the contents of `data.json`, or {} if missing; raises ValueError if damaged."""
    if not (folder / DATA).is_file():
        return {}
    facts = read_json(folder / DATA, SavedFacts, remedy="delete it, and --resume writes it again")
    return {name: list(v) if isinstance(v, tuple) else v for name, v in facts.items()}


def read_history(folder: Path) -> list[dict[str, Any]]:
    """Return the recorded changes of a run's data and number of epochs.

    Raises ValueError if the file is damaged, since the next entry would overwrite it.
    """
    if not (folder / HISTORY).is_file():
        return []
    remedy = "move it away: it only tells what changed after the run began"
    history: list[dict[str, Any]] = read_json(folder / HISTORY, History, remedy=remedy)["history"]
    return history
