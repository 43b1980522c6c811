"""The precision, compilation and switches with which a run computed, in words."""

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
    """Return the settings in `training` of how to compute that differ from the defaults, in words.

    Returns "" if none differ. Settings of earlier versions, which lack some of them, are accepted.
    """
    precision, compiled = training.get("mixed_precision", "no"), training.get("compile", False)
    words = [] if precision == "no" else [str(precision)]
    if compiled:
        words.append("compiled" if compiled is True else f"compiled ({compiled})")
    for name, texts in _SWITCHES.items():
        words += [text for value, text in texts.items() if training.get(name) is value]
    return ", ".join(words)
