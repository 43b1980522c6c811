"""Describes the runs' model, images, training and attacks in words, from their settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from advprop.files.parsing import at
from advprop.results.engine import engine_words

Json = Mapping[str, Any]


def run_facts(runs: Sequence[Json], configs: Sequence[Json]) -> list[tuple[str, str]]:
    """Return (term, text) pairs; a text names all distinct values, and unknown terms are omitted.

    `configs` are those of `render_report`.
    """
    facts: dict[str, dict[str, None]] = {}
    for run in runs:
        if found := run.get("data_found"):
            for term, text in _of_data(found):
                facts.setdefault(term, {})[text] = None
    for entry in configs:
        for term, text in _of_config(entry["config"]):
            facts.setdefault(term, {})[text] = None
    return [(term, "; ".join(texts)) for term, texts in facts.items()]


def attack_of_tests(configs: Sequence[Json]) -> str:
    """Return the attack of the tests in words, "" if it is unknown or differs between runs."""
    texts = {_attack(at(entry["config"], "evaluation", "attack")) for entry in configs}
    return texts.pop() if len(texts) == 1 else ""


def _of_data(found: Json) -> Iterable[tuple[str, str]]:
    sources = found.get("sources") or {}
    splits = [
        f"{count:,} {'training' if split == 'train' else split}"
        + (f" ({sources[split]})" if split in sources else "")
        for split, count in (found.get("images") or {}).items()
    ]
    yield "Images", f"{found.get('name')}: {', '.join(splits)}"
    names = ", ".join(map(str, found.get("first_classes") or ()))
    more = (
        ", ..." if (found.get("num_classes") or 0) > len(found.get("first_classes") or ()) else ""
    )
    few, most = found.get("fewest_images"), found.get("most_images")
    spread = f"{few:,}" if few == most else f"{few:,} to {most:,}"
    yield (
        "Classes",
        f"{found.get('num_classes')} ({names}{more}), {spread} training images each",
    )
    if passed_over := found.get("passed_over"):
        yield "Skipped", ", ".join(f"{n:,} {reason}" for reason, n in passed_over.items())


def _of_config(config: Json) -> Iterable[tuple[str, str]]:
    if name := at(config, "model", "name"):
        began = ", from pretrained weights" if at(config, "model", "pretrained") else ""
        began = ", from local weights" if at(config, "model", "checkpoint") else began
        yield "Model", f"{name}{began}"
    training = at(config, "training") or {}
    if "optimizer" in training and "batch_size" in training:
        yield (
            "Training",
            f"{training['optimizer']}, batches of {training['batch_size']}, learning rate "
            f"{training.get('learning_rate')}",
        )
    if engine := engine_words(training):
        yield "Computation", engine
    if attack := _attack(at(config, "method", "attack")):
        yield "Attack in training", attack
    noise = at(config, "evaluation", "noise_standard_deviation")
    if noise is not None:
        yield "Noise in tests", f"Gaussian, standard deviation {noise:g}"
    if attack := _attack(at(config, "evaluation", "attack")):
        yield "Attack in tests", attack


def _attack(attack: Any) -> str:
    epsilon = at(attack, "threat_model", "epsilon")
    if epsilon is None:
        return ""
    kind = str(at(attack, "threat_model", "kind")).capitalize()
    steps = at(attack, "num_steps")
    many = "" if steps is None else f", {steps} step{'s' * (steps != 1)}"
    return f"{kind}, epsilon {epsilon:.4g} for pixel values in [0, 1]{many}"
