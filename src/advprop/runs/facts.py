"""What a run's folder keeps of its data, and of what has changed since it began."""

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
    """What is kept of a split's images."""

    num: Count
    order_sha256: str
    checksums: str


class SavedFacts(DataFacts):
    """What `data.json` says of a run's images; older runs know less."""

    images: dict[str, SplitFacts] = Field(default_factory=dict)
    first_weights: str | None = None


class History(Part):
    """What `history.json` holds: for each change its words, and the epoch and step it came at."""

    history: list[dict[str, Any]]


def load_data(config: RunConfig) -> tuple[ImageData, dict[str, Any]]:
    """The run's data, and all that is to be known of them and of the weights it begins with."""
    try:
        data = config.data.load(config.seed)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {config.data.places_to_set()} names another") from None
    more = {"found": found_in(data).to_json(), "first_weights": config.model.first_weights()}
    return data, {**data_facts(data), **more}


def write_data_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Keep in `data.json` what the run's model and its resumption need to know of the data.

    What was known of weights that are gone by now stays.
    """
    known = None
    with suppress(ValueError):  # a damaged file is what this one replaces
        known = saved_facts(folder).get("first_weights")
    write_json(folder / DATA, {**facts, "first_weights": facts.get("first_weights") or known})


def check_same_data(folder: Path, facts: Mapping[str, Any], data: ImageData) -> list[str]:
    """What has changed since a run began, in data whose facts are `facts`, and does it no harm.

    Raises ValueError where the run cannot go on with them.
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
    """What `data.json` holds; nothing where there is none. ValueError: it is damaged."""
    if not (folder / DATA).is_file():
        return {}
    facts = read_json(folder / DATA, SavedFacts, remedy="delete it, and --resume writes it again")
    return {name: list(v) if isinstance(v, tuple) else v for name, v in facts.items()}


def read_history(folder: Path) -> list[dict[str, Any]]:
    """What has changed about a run after it began: its data, its number of epochs.

    Raises ValueError where the file is damaged, which the next entry would replace.
    """
    if not (folder / HISTORY).is_file():
        return []
    remedy = "move it away: it only tells what changed after the run began"
    history: list[dict[str, Any]] = read_json(folder / HISTORY, History, remedy=remedy)["history"]
    return history
