"""An export's `README.md`: a model card as the Hugging Face Hub reads it, of facts of the run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from advprop.data.preprocessing import Preprocessing

CARD = "README.md"
_TASK = "image-classification"
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")
_SPLIT = re.compile(r" (test|validation)( \(|$)")
_MAX_LISTED_CLASSES = 50
_TRAINING_SETTINGS = (
    *("batch_size", "optimizer", "learning_rate", "schedule", "weight_decay"),
    *("label_smoothing", "ema_decay", "mixed_precision"),
)
_SUITE_SETTINGS = (
    *("num_images", "standard_deviation", "threat_model", "epsilon", "num_steps", "step_size"),
    "attack_branch",
)
_TIMM = """```python
import timm, torch
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # where this file lies
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
image = transform(Image.open("photo.jpg").convert("{mode}"))  # mean and std are taken off here
with torch.no_grad():
    probabilities = model(image.unsqueeze(0)).softmax(dim=1)[0]
print(model.pretrained_cfg["label_names"][probabilities.argmax()])
```"""
_ADVPROP = """With advprop, `advprop predict FOLDER photo.jpg`, or in Python a model for images in
[0, 1], without mean and std taken off: `advprop.load_export("FOLDER").model`."""
_INTERCHANGE = {
    "onnx": """`model.onnx` takes float32 `images` in [0, 1], shape {shape}, and gives `logits`:
`onnxruntime.InferenceSession("model.onnx").run(["logits"], {{"images": images}})[0]`""",
    "torch_export": """`model.pt2` takes the same as a tensor, shape {shape}:
`torch.export.load("model.pt2").module()(images)`. PyTorch may run code that such a file holds: load
it only if you trust where it is from.""",
}
_LIMITS = """- It is no defence. An accuracy under one attack is an upper bound: stronger ones
  leave less, and what an attacker who adapts to this model can do was not measured.
- It names one of its {number} classes for any image, also for one that shows none of them.
- The results hold for images like those they were measured on, and tell nothing of others."""
_LICENSE = """No license is stated. Whoever publishes this folder chooses one (`license:` in the
head of this file), with regard to the training images"""


def model_card(
    *,
    architecture: str,
    timm_loads: bool,
    class_names: Sequence[str],
    preprocessing: Preprocessing,
    mean: Sequence[float],
    std: Sequence[float],
    branch: str,
    provenance: Mapping[str, Any],
    checks: Mapping[str, Mapping[str, Any]],
) -> str:
    """The card as Markdown with a YAML head.

    `mean` and `std` (one number a channel) are the model's first layer; `timm_loads` says whether
    `timm.create_model` takes the folder; `checks` is what `write_interchange` returned. Of
    `provenance`, `{config, weights, result, data, test, versions}` are told as far as they are
    there; what is not known is left out.
    """
    method = _at(provenance, "config", "method", "kind")
    start = [_at(provenance, "config", "model", key) for key in ("pretrained", "checkpoint")]
    results = _results(provenance, branch)
    name = " ".join(str(part) for part in (architecture, method) if part)
    sections = {
        "How to use": _usage(preprocessing, timm_loads=timm_loads, checks=checks),
        "Classes": _classes(class_names),
        "Training": _table(("setting", "value"), _training(provenance)),
        "Data": _table(("of the data", "value"), _data(provenance)),
        "Results": _table(("accuracy", "value", "images", "with"), map(_result_row, results)),
        "Preprocessing": _seen(preprocessing, mean, std),
        "Limits": _LIMITS.format(number=len(class_names)),
        "Files": _table(("file", "holds", "check"), _files(checks)),
        "Versions": _table(("package", "version"), (_at(provenance, "versions") or {}).items()),
        "License": _LICENSE + (" and the pretrained weights." if any(start) else "."),
    }
    head = _head(name, _data_name(provenance), results, timm_loads=timm_loads)
    trained = f", trained by the method `{method}`" if method else ""
    shown = [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    opening = f"# {name}\n\nAn image classifier, `{architecture}`{trained}."
    return "\n\n".join([f"---\n{head}\n---", opening, *shown]) + "\n"


def _head(name: str, data: str, results: list[EvalResult], *, timm_loads: bool) -> str:
    card = ModelCardData(
        library_name="timm" if timm_loads else "pytorch",
        pipeline_tag=_TASK,
        tags=[_TASK, *(["timm"] if timm_loads else []), "pytorch", "advprop"],
        datasets=[data] if _HUB_NAME.fullmatch(data) else None,
        metrics=["accuracy"] if results else None,
        model_name=name,
        eval_results=results or None,
    )
    return card.to_yaml()


def _usage(
    preprocessing: Preprocessing, *, timm_loads: bool, checks: Mapping[str, Mapping[str, Any]]
) -> str:
    channels, height, width = preprocessing.image_shape
    texts = [_TIMM.format(mode="RGB" if channels == 3 else "L")] if timm_loads else []
    shape = f"[batch, {channels}, {height}, {width}]"
    others = [_INTERCHANGE[check["format"]].format(shape=shape) for check in checks.values()]
    return "\n\n".join([*texts, _ADVPROP, *others])


def _classes(names: Sequence[str]) -> str:
    if len(names) > _MAX_LISTED_CLASSES:
        return f"{len(names)}; their names are `label_names` in `config.json`."
    return f"{len(names)}, in the order of the logits: {', '.join(map(_cell, names))}."


def _training(provenance: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    config, result = _at(provenance, "config"), _at(provenance, "result")
    yield "recipe", _at(config, "recipe")
    yield "method", _at(config, "method", "kind")
    for path, value in _flat(_at(config, "method") or {}, "method"):
        if path != "method.kind":
            yield path, value
    if _at(config, "model", "pretrained"):
        yield "began with", f"timm's pretrained weights of {_at(config, 'model', 'name')}"
    if checkpoint := _at(config, "model", "checkpoint"):
        yield "began with", f"weights of a local file, {checkpoint.rpartition('/')[2]}"
    yield "epochs", _at(result, "epochs") or _at(config, "training", "num_epochs")
    if result == {}:
        yield "state", "the run had not come to its end"
    yield "forward-backward passes for each image and epoch", _at(result, "passes_per_image")
    yield "forward-backward passes for each image in all", _at(result, "total_passes")
    yield "seconds", _at(result, "train_seconds")
    yield "seed", _at(config, "seed")
    for name in _TRAINING_SETTINGS:
        yield name, _at(config, "training", name)
    yield "weights", _at(provenance, "weights")


def _data(provenance: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    yield "name", _data_name(provenance) or None
    for split in ("train", "validation", "test"):
        yield f"{split} images", _at(provenance, "data", f"num_{split}")


def _data_name(provenance: Mapping[str, Any]) -> str:
    named = _at(provenance, "data", "name") or _at(provenance, "config", "data", "name")
    return str(named or "")


def _results(provenance: Mapping[str, Any], branch: str) -> list[EvalResult]:
    """Only what was measured on the weights and the branch that are exported."""
    found = []
    weights, data, test = (_at(provenance, key) for key in ("weights", "data", "test"))
    measured = "best_validation_accuracy" if weights == "best" else "validation_accuracy"
    accuracy = _at(provenance, "result", measured)
    # a run that keeps an average of its weights validates that average
    other = weights == "last" and _at(provenance, "config", "training", "ema_decay") is not None
    if accuracy is not None and branch == "clean" and not other:
        images = f"{_data_name(provenance)} validation".strip()
        found.append(
            _result("clean", accuracy, images, {"num_images": _at(data, "num_validation")})
        )
    if _at(test, "weights") == weights and _at(test, "branch") == branch:
        for suite, numbers in (_at(test, "suites") or {}).items():
            if (accuracy := _at(numbers, f"{suite}_accuracy")) is not None:
                found.append(_result(suite, accuracy, str(_at(numbers, "images")), numbers))
    return found


def _result(measure: str, accuracy: float, images: str, settings: Mapping[str, Any]) -> EvalResult:
    split = _SPLIT.search(images)
    known = {key: settings[key] for key in _SUITE_SETTINGS if settings.get(key) is not None}
    return EvalResult(
        task_type=_TASK,
        dataset_name=images,
        dataset_type=images,
        dataset_split=None if split is None else split[1],
        metric_type="accuracy",
        metric_name=f"{measure} accuracy",
        metric_value=accuracy,
        metric_args=known or None,
    )


def _result_row(result: EvalResult) -> tuple[Any, ...]:
    settings = ", ".join(
        f"{key} {_cell(value)}" for key, value in (result.metric_args or {}).items()
    )
    return result.metric_name, f"{result.metric_value:.2%}", result.dataset_name, settings


def _seen(preprocessing: Preprocessing, mean: Sequence[float], std: Sequence[float]) -> str:
    channels, height, width = preprocessing.image_shape
    numbers = [", ".join(f"{value:.4g}" for value in values) for values in (mean, std)]
    return (
        f"{'RGB' if channels == 3 else 'Grey'}, {height} x {width}: the shorter edge scaled to the "
        f"size divided by {preprocessing.crop_pct:g} ({preprocessing.interpolation}), the centre "
        f"cut out, [0, 255] to [0, 1], mean {numbers[0]}, standard deviation {numbers[1]}. advprop "
        "also turns images as their EXIF data say, and lays transparent ones over white."
    )


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


def _table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table of the rows whose second cell is known; empty without any."""
    lines = [f"| {' | '.join(map(_cell, row))} |" for row in rows if row[1] is not None]
    head = [f"| {' | '.join(titles)} |", f"|{' --- |' * len(titles)}"]
    return "\n".join([*head, *lines]) if lines else ""


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _flat(tree: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}.{key}")
        else:
            yield f"{path}.{key}", value


def _at(tree: Any, *path: str) -> Any:
    """What stands at `path`, None where there is nothing."""
    for key in path:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree
