"""Records a finished run's test results, pictures and branch statistics as JSON."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from advprop.auxiliary.branches import attack_mode, branch_names, use_branch
from advprop.auxiliary.route import CLEAN, has_auxiliary_norms
from advprop.auxiliary.statistics import branch_distances
from advprop.evaluation.gallery import record_gallery, record_predictions
from advprop.evaluation.saliency import Maps, grad_cam, input_gradients
from advprop.files.json_files import read_json, write_json
from advprop.files.parsing import Part
from advprop.models.standardize import Standardized
from advprop.report.findings import OwnTest
from advprop.report.records import Record
from advprop.results.rows import Flag
from advprop.results.summary import LABEL_MEASURES
from advprop.runs.folder import CONFIG, DATA, METRICS, DataFacts, Run, load_run, read_result
from advprop.shapes import Batch
from advprop.suites import DEFAULT_SUITES, evaluate, through_branch
from advprop.suites.trial import OnDevice
from advprop.training.run_log import RunLog

TEST, RECORD = "test.json", "record.json"
_GALLERY_SIZE, _NUM_PREDICTIONS = 8, 200


def complete_run(folder: Path) -> dict[str, Any]:
    """Return a finished run's row of `results.json`, after testing and recording it if necessary.

    Raises ValueError for a run that is not finished.
    """
    result = read_result(folder)
    if not result:
        raise ValueError(f"{folder}: not finished; advprop train ... --resume continues it")
    if not (folder / TEST).is_file():
        record_test(folder, evaluate(folder))
    if not (folder / RECORD).is_file():
        write_json(folder / RECORD, _record(folder))
    test = read_test(folder)
    found, flags = accuracies(test["suites"]), list(test.get("red_flags", ()))
    tested_on = test["suites"]["clean"]["images"]
    row = {**result, **found, "tested_on": tested_on, "red_flags": flags}
    data = read_json(folder / DATA, DataFacts)  # the data of older runs lack "found"
    return row | {"data_found": data["found"]} if data.get("found") else row


def read_test(folder: Path) -> dict[str, Any]:
    """Return the recorded tests of the run in `folder`, empty if there are none.

    Raises ValueError if the file is damaged.
    """
    return _found(folder / TEST, OwnTest)


def keeps_tests(folder: Path) -> bool:
    """Return whether `folder` holds a finished run; raises ValueError if its test is damaged."""
    read_test(folder)
    return is_run(folder) and bool(read_result(folder))


def record_test(folder: Path, found: dict[str, Any]) -> bool:
    """Merge `found`, the result of `evaluate` for the run in `folder`, into the recorded test.

    A suite that was tested again is replaced, but keeps its curve and pairs of branches if the new
    test has none; other suites stay. Returns False and writes nothing if nothing
    is recorded and `found` lacks some of the default suites, which must be recorded first.
    """
    known = read_test(folder)
    if not known and not set(DEFAULT_SUITES) <= set(found["suites"]):
        return False
    before = dict(known.get("suites") or {})
    suites = {name: _kept(before.pop(name, {})) | new for name, new in found["suites"].items()}
    flags = known.get("red_flags") or ()
    kept = [flag for flag in flags if Flag.model_validate(flag).suite in before]
    whole = {
        **found,
        "suites": before | suites,
        "checks": (known.get("checks") or {}) | found["checks"],
        "red_flags": [*found["red_flags"], *kept],
    }
    write_json(folder / TEST, whole)
    return True


def _kept(suite: dict[str, Any]) -> dict[str, Any]:
    return {key: suite[key] for key in ("curve", "pairs") if key in suite}


def accuracies(suites: dict[str, Any]) -> dict[str, float]:
    """Return `NAME_accuracy` of each suite of a test, and its label measures if it has any."""
    names = ("accuracy", *LABEL_MEASURES)
    return {
        key: numbers[key]
        for suite, numbers in suites.items()
        for key in (f"{suite}_{name}" for name in names)
        if key in numbers or key.endswith("_accuracy")
    }


def run_details(folder: Path) -> dict[str, Any]:
    """Return a run's `curve`, `record` and `test` in the report's format, each empty if missing.

    Raises ValueError for a damaged file.
    """
    keys = ("epoch", "passes", "train", "validation_accuracy")
    points = [{key: entry[key] for key in keys} for entry in RunLog(folder / METRICS).read()]
    record = _found(folder / RECORD, Record)
    return {"curve": {"points": points}, "record": record, "test": read_test(folder)}


def is_run(folder: Path) -> bool:
    """Return whether `folder` holds a run."""
    return (folder / CONFIG).is_file()


def _found(path: Path, form: type[Part]) -> dict[str, Any]:
    remedy = "delete it, and advprop report writes it again"
    return read_json(path, form, remedy=remedy) if path.is_file() else {}


def _record(folder: Path) -> dict[str, Any]:
    run = load_run(folder)
    data = run.load_data()
    if data.multi_label:  # pictures are shown with their class
        return {"statistics": _distances(run)}
    split = data.validation if data.test is None else data.test
    logits_fn, names = through_branch(run.model, CLEAN), split.names()
    batches = partial(OnDevice, split=split, device=run.model.mean.device)
    batch = next(iter(batches(batch_size=_GALLERY_SIZE, limit=_GALLERY_SIZE)))
    with attack_mode(run.model):
        gallery = record_gallery(
            logits_fn,
            batch,
            attack=run.config.evaluation.attack.build(),
            class_names=data.class_names,
            names=names,
            saliency=_saliency(run.model, batch),
        )
    predictions = record_predictions(
        logits_fn,
        batches(batch_size=run.config.evaluation.batch_size, limit=_NUM_PREDICTIONS),
        class_names=data.class_names,
        names=names,
    )
    return {"gallery": gallery, "statistics": _distances(run), "predictions": predictions}


def _saliency(model: Standardized, batch: Batch) -> dict[str, Maps]:
    """Return input gradients and Grad-CAM of the clean and the first auxiliary branch, by title."""
    branches = branch_names(model)[:2] if has_auxiliary_norms(model) else (CLEAN,)
    found = {}
    for branch in branches:
        of = f", {branch}" if len(branches) > 1 else ""
        logits_fn = through_branch(model, branch)
        found[f"gradient{of}"] = input_gradients(logits_fn, batch.images, batch.labels)
        with use_branch(model, branch) if has_auxiliary_norms(model) else nullcontext():
            cam = grad_cam(model.model, (batch.images - model.mean) / model.std, batch.labels)
        if cam is not None:
            found[f"Grad-CAM{of}"] = cam
    return dict(sorted(found.items(), key=lambda item: item[0].startswith("Grad-CAM")))


def _distances(run: Run) -> list[dict[str, Any]]:
    if not has_auxiliary_norms(run.model):
        return []
    _, branch, *_ = branch_names(run.model)
    return [asdict(distance) for distance in branch_distances(run.model, branch)]
