"""The export of a run's plain model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advprop.exports.export import write_export
from advprop.files.json_files import read_json
from advprop.files.parsing import without_paths
from advprop.runs.folder import DATA, Weights, load_run, versions


def export(
    run: str | Path,
    out: str | Path,
    *,
    weights: Weights | None = None,
    formats: Sequence[str] = ("hub",),
) -> Path:
    """Write the run's plain model to the folder `out`, and return that path.

    The plain model is the clean branch. The export contains no paths of this machine. `weights` are
    those of `load_run`; `formats` those of `advprop.exports.export.write_export`. Raises the errors
    of these functions.
    """
    loaded = load_run(run, weights=weights)
    data, test = read_json(loaded.folder / DATA), loaded.folder / "test.json"
    told = ("name", "num_train", "num_validation", "num_test")
    return write_export(
        loaded.model,
        out,
        class_names=loaded.class_names,
        preprocessing=loaded.preprocessing,
        provenance=without_paths(
            {
                "config": loaded.config.without_places().model_dump(mode="json"),
                "weights": loaded.weights,
                "result": loaded.result,
                "data": {key: data[key] for key in told if key in data},
                "test": read_json(test) if test.is_file() else None,
                "versions": versions(),
            }
        ),
        formats=formats,
        multi_label=loaded.multi_label,
    )
