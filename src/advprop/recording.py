"""What a finished run is shown by: its test results, pictures and branch statistics, as JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advprop.auxiliary.branches import branch_names, has_auxiliary_norms
from advprop.auxiliary.modes import attack_mode
from advprop.auxiliary.norm import CLEAN
from advprop.auxiliary.statistics import branch_distances
from advprop.data.loaders import test_batches
from advprop.evaluation.gallery import record_gallery
from advprop.report.render import render_report
from advprop.run_folder import CONFIG, METRICS, load_run, read_result
from advprop.suites import evaluate, through_branch
from advprop.training.files import read_json, write_atomically, write_json
from advprop.training.run_log import RunLog

RESULTS, REPORT, TEST, RECORD = "results.json", "report.html", "test.json", "record.json"
_GALLERY_SIZE = 8


def complete_run(folder: Path) -> dict[str, Any]:
    """Test a finished run and record it, each once; return its row of `results.json`.

    Raises ValueError for a run that is not finished.
    """
    result = read_result(folder)
    if not result:
        raise ValueError(f"{folder}: not finished; advprop train ... --resume goes on")
    if not (folder / TEST).is_file():
        write_json(folder / TEST, evaluate(folder))
    if not (folder / RECORD).is_file():
        write_json(folder / RECORD, _record(folder))
    try:
        test = read_json(folder / TEST)
        suites, flags = test["suites"], list(test["red_flags"])
        accuracies = {f"{suite}_accuracy": suites[suite][f"{suite}_accuracy"] for suite in suites}
        tested_on = suites["clean"]["images"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(_again(folder / TEST, error)) from None
    return {**result, **accuracies, "tested_on": tested_on, "red_flags": flags}


def run_details(folder: Path, *, method: str, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """One run's curve and record, as the report takes them."""
    points = [
        {
            "epoch": entry["epoch"],
            "passes": entry["passes"],
            "train": entry["train"],
            "validation_accuracy": entry["validation_accuracy"],
        }
        for entry in RunLog(folder / METRICS).read()
    ]
    try:
        record = read_json(folder / RECORD) if (folder / RECORD).is_file() else {}
    except ValueError as error:
        raise ValueError(_again(folder / RECORD, error)) from None
    label = {"method": method, "seed": seed}
    return {**label, "points": points}, {**label, **record}


def write_report(folder: Path, results: dict[str, Any], details: dict[str, Any]) -> Path:
    """Write `report.html` into `folder`. Raises OSError."""
    page = render_report(results, details).encode()
    write_atomically(folder / REPORT, lambda file: file.write(page))
    return folder / REPORT


def is_run(folder: Path) -> bool:
    """Whether `folder` holds a run."""
    return (folder / CONFIG).is_file()


def _again(path: Path, error: Exception) -> str:
    reason = str(error) if isinstance(error, ValueError) else f"{path}: damaged ({error!r})"
    return f"{reason}; delete it, and advprop report writes it again"


def _record(folder: Path) -> dict[str, Any]:
    run = load_run(folder)
    data = run.load_data()
    split = data.validation if data.test is None else data.test
    batch = next(iter(test_batches(split, batch_size=_GALLERY_SIZE, limit=_GALLERY_SIZE)))
    logits_fn = through_branch(run.model, CLEAN)
    with attack_mode(run.model):
        gallery = record_gallery(
            logits_fn,
            batch,
            attack=run.config.evaluation.attack.build(),
            attacked_logits_fn=logits_fn,
            class_names=data.class_names,
        )
    distances = []
    if has_auxiliary_norms(run.model):
        _, branch, *_ = branch_names(run.model)
        distances = [distance.to_json() for distance in branch_distances(run.model, branch)]
    return {"gallery": gallery, "statistics": distances}
