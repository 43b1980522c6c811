"""The runs found in folders and files of results, with their data for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advprop.files.parsing import leaves

Json = Mapping[str, Any]


@dataclass(kw_only=True)
class FoundRun:
    """One run: its row of results, its folder, and its records and tests.

    `identity` is equal for two finds of the same weights of one run; `settings` is its
    configuration, None if only results are left. `source` is the path that the user named.
    """

    row: dict[str, Any]
    place: Path
    source: Path
    recipe: str
    identity: tuple[Any, ...]
    settings: Json | None = None
    of_comparison: bool = False
    curve: dict[str, Any] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    test: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """The training method, whatever the label."""
        return str(self.row.get("kind") or self.row["method"])

    @property
    def same_settings(self) -> str:
        """A text that is equal for runs that differ only in the seed."""
        if self.settings is None:
            parts = [self.row.get(key) for key in ("epochs", "passes_per_image")]
            return repr((self.recipe, *parts))
        return repr({key: value for key, value in self.settings.items() if key != "seed"})

    def leaves(self) -> dict[str, Any]:
        """Return the settings as paths and values."""
        return dict(leaves(self.settings or {}))


@dataclass(kw_only=True)
class Source:
    """One DIR of the command line: its runs, their commands and versions, notes and trials."""

    path: Path
    recipe: str
    runs: list[FoundRun]
    commands: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    trials: list[Json] = field(default_factory=list)
