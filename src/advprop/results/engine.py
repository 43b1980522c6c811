"""Describes the precision, compilation and switches with which a run computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SWITCHES = {
    "tf32": {True: "TF32", False: "no TF32"},
    "deterministic": {True: "deterministic"},
    "cudnn_benchmark": {True: "cuDNN benchmark"},
    "sync_batchnorm": {True: "SyncBatchNorm", False: "no SyncBatchNorm"},
}


def engine_words(training: Mapping[str, Any]) -> str:
    """Return the computing switches in `training` that differ from the defaults, as text.

    Returns "" if none differ. Accepts the settings of earlier versions, which lack some switches.
    """
    precision, compiled = training.get("mixed_precision", "no"), training.get("compile", False)
    words = [] if precision == "no" else [str(precision)]
    if compiled:
        words.append("compiled" if compiled is True else f"compiled ({compiled})")
    for name, texts in _SWITCHES.items():
        words += [text for value, text in texts.items() if training.get(name) is value]
    return ", ".join(words)
