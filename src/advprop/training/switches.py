"""Sets torch's global switches by a run's settings, and restores them after it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cuda, cudnn

from advprop.training.settings import TrainingSettings

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_CUBLAS_DETERMINISTIC = (":4096:8", ":16:8")


@contextmanager
def torch_switches(settings: TrainingSettings) -> Iterator[None]:
    """Apply `deterministic`, `cudnn_benchmark` and `tf32` of `settings` to torch inside.

    Switches that `settings` do not mention stay unchanged. All are restored after, except for the
    environment variable that cuBLAS reads once per process. With `deterministic`, raises ValueError
    if CUDA has started before, or if an operation inside, which the message names, has no
    deterministic form.
    """
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, tf32 = cudnn.benchmark, (cuda.matmul.allow_tf32, cudnn.allow_tf32)
    try:
        if settings.deterministic:
            _fix_cublas()
            torch.use_deterministic_algorithms(True)
            cudnn.benchmark = False
        elif settings.cudnn_benchmark:
            cudnn.benchmark = True
        if settings.tf32 is not None:
            cuda.matmul.allow_tf32 = cudnn.allow_tf32 = settings.tf32
        yield
    except RuntimeError as error:
        message = _not_deterministic(str(error))
        if message is None:
            raise
        raise ValueError(message) from error
    finally:
        if settings.deterministic:
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        cudnn.benchmark = benchmark
        if settings.tf32 is not None:
            cuda.matmul.allow_tf32, cudnn.allow_tf32 = tf32


def _fix_cublas() -> None:
    """Set the variable for cuBLAS's workspace; raises ValueError if it differs or CUDA runs."""
    given = os.environ.get(_CUBLAS)
    if given in _CUBLAS_DETERMINISTIC:
        return
    if given is not None or torch.cuda.is_initialized():
        raise ValueError(
            f"training.deterministic with {_CUBLAS}={given or '(none)'}"
            f"{' after CUDA has started' * (given is None)}: start Python with {_CUBLAS}="
            f"{_CUBLAS_DETERMINISTIC[0]} in its environment, or set training.deterministic=false"
        )
    os.environ[_CUBLAS] = _CUBLAS_DETERMINISTIC[0]


def _not_deterministic(text: str) -> str | None:
    """Return a message with a remedy for torch's errors in deterministic mode, else None."""
    if found := re.search(r"(\S+) does not have a deterministic implementation", text):
        return (
            f"training.deterministic: {found[1]} has no deterministic form on this device: take a "
            "model or method without it, or set training.deterministic=false"
        )
    if "not deterministic because it uses CuBLAS" in text:
        return (
            f"training.deterministic: cuBLAS had started before {_CUBLAS} was set: start Python "
            f"with {_CUBLAS}={_CUBLAS_DETERMINISTIC[0]} in its environment"
        )
    return None
