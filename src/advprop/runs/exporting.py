"""Exporting the plain model of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from advprop.auxiliary.branches import branch_names
from advprop.exports.export import write_export
from advprop.files.json_files import read_json
from advprop.files.parsing import without_paths
from advprop.runs.folder import DATA, Weights, load_run, versions
from advprop.runs.soups import mix_run


def export(
    run: str | Path,
    out: str | Path,
    *,
    weights: Weights | None = None,
    mix: float | None = None,
    formats: Sequence[str] = ("hub",),
) -> Path:
    """Write the run's plain model (`advprop.exports.export.write_export`) into the folder `out`.

    The plain model is the clean branch, or the branch soup of weight `mix` (`mix_run`), which the
    model card states. The export contains no paths of this machine.
    """
    loaded = load_run(run, weights=weights)
    data, test = read_json(loaded.folder / DATA), loaded.folder / "test.json"
    told = ("name", "num_train", "num_validation", "num_test")
    model, soup = loaded.model, {}
    if mix is not None:
        model = mix_run(loaded, mix)
        soup = {"mix": {"branch": branch_names(loaded.model)[1], "weight": mix}}
    return write_export(
        model,
        out,
        class_names=loaded.class_names,
        preprocessing=loaded.preprocessing,
        provenance=without_paths(
            {
                "config": loaded.config.without_places().model_dump(mode="json"),
                "weights": loaded.weights,
                **soup,
                "result": loaded.result,
                "data": {key: data[key] for key in told if key in data},
                "test": read_json(test) if test.is_file() else None,
                "versions": versions(),
            }
        ),
        formats=formats,
        multi_label=loaded.multi_label,
    )
