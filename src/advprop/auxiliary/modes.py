"""The state a model is in while it is attacked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Literal

from torch import nn

from advprop.auxiliary.running import frozen_statistics, running_statistics


@contextmanager
def attack_mode(
    model: nn.Module,
    *,
    statistics: Literal["running", "batch"] = "running",
    update: bool = False,
) -> Iterator[None]:
    """Ready `model` for an attack, and restore every mode and flag on exit and on exception.

    Inside, dropout and stochastic depth are off and all parameters are frozen (their `.grad`
    stays untouched, and a compiled backward skips them). Normalisation takes its "running"
    statistics (as AdvProp does; Mei et al. 2022, section 3.2.2) or those of the "batch", which
    reach the running ones only with `update=True`.

    Raises ValueError where `update` could have no effect.
    """
    if statistics not in ("running", "batch"):
        raise ValueError(f'statistics={statistics!r}: choose "running" or "batch"')
    if update and statistics == "running":
        raise ValueError('update=True has no effect on running statistics: use statistics="batch"')
    modes = [(layer, layer.training) for layer in model.modules()]
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with ExitStack() as stack:
        stack.callback(_restore, modes, trainable)
        model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        if statistics == "batch":
            _normalise_by_batch(model)
            if not update:
                stack.enter_context(frozen_statistics(model))
        yield


def _normalise_by_batch(model: nn.Module) -> None:
    for layer in model.modules():
        if running_statistics(layer):
            layer.training = True


def _restore(modes: list[tuple[nn.Module, bool]], trainable: list[nn.Parameter]) -> None:
    for layer, training in modes:
        layer.training = training
    for parameter in trainable:
        parameter.requires_grad_(True)
