"""Makes an export's `README.md`, a model card for the Hugging Face Hub with facts of the run."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from advprop.data.preprocessing import Preprocessing
from advprop.exports.format import ExportInfo
from advprop.files.parsing import at, leaves, printable
from advprop.models.build import is_timm
from advprop.results.summary import LABEL_MEASURES

CARD = "README.md"
_TEMPLATE = Path(__file__).with_name("model_card_template.md")
_TASK = "image-classification"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SPLIT = re.compile(r" (test|validation)( \(|$)")
_TRAINING_SETTINGS = (
    *("batch_size", "optimizer", "learning_rate", "schedule", "weight_decay"),
    *("label_smoothing", "ema_decay", "mixed_precision"),
)
_MEASURES = {"accuracy": "accuracy", **LABEL_MEASURES}
_HUB_METRICS = {"auroc": "roc_auc"}
_SUITE_SETTINGS = (
    *("num_images", "standard_deviation", "threat_model", "epsilon", "num_steps", "step_size"),
    "attack_branch",
)


def model_card(
    info: ExportInfo,
    *,
    architecture: str,
    mean: Sequence[float],
    std: Sequence[float],
    branch: str,
) -> str:
    """Return the card as Markdown with a YAML head.

    `mean` and `std` (one number per channel) are those of the model's first layer; `branch` is the
    exported one. Entries `{config, weights, result, data, test, versions}` of the provenance are
    shown if present. Users' names are escaped, so that they cannot become Markdown or HTML.
    """
    provenance, preprocessing = info.provenance, info.preprocessing
    timm_loads = is_timm(architecture)
    method = at(provenance, "config", "method", "kind")
    start = [at(provenance, "config", "model", key) for key in ("pretrained", "checkpoint")]
    results = _results(provenance, branch)
    name = " ".join(str(part) for part in (architecture, method) if part)
    resize, scaling = _resizing(preprocessing)
    card = ModelCard.from_template(
        _head(name, _data_name(provenance), results, timm_loads=timm_loads),
        template_str=_TEMPLATE.read_text(encoding="utf-8"),
        name=as_text(name),
        architecture=architecture,
        method=method and as_text(method),
        timm_loads=timm_loads,
        shape=preprocessing.image_shape,
        resize=resize,
        scaling=scaling,
        interpolation=preprocessing.interpolation,
        mean=", ".join(f"{value:.4g}" for value in mean),
        std=", ".join(f"{value:.4g}" for value in std),
        class_names=[as_text(name) for name in info.class_names],
        formats=[f"`{file}`" for file in info.checks],
        training=_rows(_training(provenance)),
        data=_rows(_data(provenance)),
        results=_rows(map(_result_row, results)),
        files=list(_files(info.checks)),
        versions=_rows((at(provenance, "versions") or {}).items()),
        began_with_weights=any(start),
        multi_label=info.multi_label,
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def as_text(value: Any) -> str:
    """Return `value` as one line of text, escaped for a cell of a Markdown table."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = html.escape(printable(text, lines=False), quote=False)
    # an underscore within a word needs no escape
    return re.sub(r"([\\`*\[\]|~$])|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def _resizing(preprocessing: Preprocessing) -> tuple[str, str]:
    """Return how timm resizes an image before the crop, as a line of Python and in words."""
    _, height, width = preprocessing.image_shape
    tall, wide = (math.floor(size / preprocessing.crop_pct) for size in (height, width))
    if preprocessing.crop_mode == "squash":
        size, words = f"({wide}, {tall})", f"scaled to {tall} x {wide} whatever its shape"
    elif tall == wide:
        size = f"[int({tall} * edge / min(image.size)) for edge in image.size]"
        words = f"the shorter edge scaled to {tall}"
    else:
        ratio = f"min(image.width / {wide}, image.height / {tall})"
        size = f"[round(edge / {ratio}) for edge in image.size]"
        words = f"scaled to cover {tall} x {wide}"
    filter_ = f"Image.Resampling.{preprocessing.interpolation.upper()}"
    return f"image = image.resize({size}, {filter_})", words


def _head(name: str, data: str, results: list[EvalResult], *, timm_loads: bool) -> ModelCardData:
    return ModelCardData(
        library_name="timm" if timm_loads else "pytorch",
        pipeline_tag=_TASK,
        tags=[_TASK, *(["timm"] if timm_loads else []), "pytorch", "advprop"],
        datasets=[data] if _HUB_NAME.fullmatch(data) else None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        model_name=printable(name, lines=False),
        eval_results=results or None,
    )


def _training(provenance: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    config, result = at(provenance, "config"), at(provenance, "result")
    yield "recipe", at(config, "recipe")
    yield "method", at(config, "method", "kind")
    for path, value in leaves(at(config, "method"), path="method"):
        if path != "method.kind" and value != {}:
            yield path, value
    if at(config, "model", "pretrained"):
        yield "began with", f"timm's pretrained weights of {at(config, 'model', 'name')}"
    if checkpoint := at(config, "model", "checkpoint"):
        yield "began with", f"weights of a local file, {checkpoint.rpartition('/')[2]}"
    yield "epochs", at(result, "epochs") or at(config, "training", "num_epochs")
    if result == {}:
        yield "state", "the run was not finished"
    yield "forward-backward passes for each image and epoch", at(result, "passes_per_image")
    yield "forward-backward passes for each image in all", at(result, "total_passes")
    yield "seconds", at(result, "train_seconds")
    yield "seed", at(config, "seed")
    for name in _TRAINING_SETTINGS:
        yield name, at(config, "training", name)
    yield "weights", at(provenance, "weights")


def _data(provenance: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "name", _data_name(provenance) or None
    for split in ("train", "validation", "test"):
        yield f"{split} images", at(provenance, "data", f"num_{split}")


def _data_name(provenance: Mapping[str, Any]) -> str:
    named = at(provenance, "data", "name") or at(provenance, "config", "data", "name")
    return str(named or "")


def _results(provenance: Mapping[str, Any], branch: str) -> list[EvalResult]:
    """Return the results measured on the exported weights and branch."""
    found = []
    weights, data, test = (at(provenance, key) for key in ("weights", "data", "test"))
    measured = "best_validation_accuracy" if weights == "best" else "validation_accuracy"
    accuracy = at(provenance, "result", measured)
    # a run with an average of weights validates that average, not the last weights
    other = weights == "last" and at(provenance, "config", "training", "ema_decay") is not None
    if accuracy is not None and branch == "clean" and not other:
        images = f"{_data_name(provenance)} validation".strip()
        found.append(_result("clean", accuracy, images, {"num_images": at(data, "num_validation")}))
    if at(test, "weights") == weights and at(test, "branch") == branch:
        for suite, numbers in (at(test, "suites") or {}).items():
            for measure, words in _MEASURES.items():
                if (value := at(numbers, f"{suite}_{measure}")) is not None:
                    images = str(at(numbers, "images"))
                    found.append(_result(suite, value, images, numbers, measure, words))
    return found


def _result(
    suite: str,
    value: float,
    images: str,
    settings: Mapping[str, Any],
    measure: str = "accuracy",
    words: str = "accuracy",
) -> EvalResult:
    split = _SPLIT.search(images)
    known = {key: settings[key] for key in _SUITE_SETTINGS if settings.get(key) is not None}
    return EvalResult(
        task_type=_TASK,
        dataset_name=printable(images, lines=False),
        dataset_type=printable(images, lines=False),
        dataset_split=None if split is None else split[1],
        metric_type=_HUB_METRICS.get(measure, measure),
        metric_name=f"{suite} {words}",
        metric_value=value,
        metric_args=known or None,
    )


def _result_row(result: EvalResult) -> tuple[Any, ...]:
    settings = ", ".join(f"{key} {value}" for key, value in (result.metric_args or {}).items())
    return result.metric_name, f"{result.metric_value:.2%}", result.dataset_name, settings


def _files(checks: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, str, str]]:
    yield "`model.safetensors`", "weights, float32", "loaded again: bit-equal logits"
    yield "`config.json`", "architecture, classes, preprocessing, the run's settings", ""
    for file, check in checks.items():
        sizes = " and ".join(map(str, check["batch_sizes"]))
        yield (
            f"`{file}`",
            f"the whole model ({check['format']})",
            f"on random images in batches of {sizes}: same classes, logits differ by at most "
            f"{check['max_difference']:.2g} (allowed: {check['tolerance']:.2g})",
        )


def _rows(rows: Iterable[Sequence[Any]]) -> list[list[str]]:
    """Return the rows whose second cell is not None, as escaped text."""
    return [[as_text(cell) for cell in row] for row in rows if row[1] is not None]
