"""`metrics.jsonl`: one JSON object an epoch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advprop.training.files import write_atomically


@dataclass(frozen=True)
class RunLog:
    """The log of one run, in order of steps."""

    path: Path

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write one entry."""
        with self.path.open("a") as file:
            file.write(json.dumps(entry, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """All whole entries; a line cut off by a kill is left out."""
        if not self.path.exists():
            return []
        entries = []
        for line in self.path.read_text().splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return entries

    def rewind(self, step: int) -> None:
        """Drop what was logged after `step`, so that a resumed run logs it once."""
        kept = [entry for entry in self.read() if entry["step"] <= step]
        text = "".join(json.dumps(entry) + "\n" for entry in kept)
        write_atomically(self.path, lambda file: file.write(text.encode()))
