"""Run one pass before training, so that a model that cannot take a run's images fails at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from advprop.files.parsing import first_line

RUN_ERRORS = (RuntimeError, AssertionError, TypeError, IndexError, AttributeError)
"""The errors that models raise for images of an unsuitable size."""


def check_forward(
    model: nn.Module,
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> None:
    """Raise ValueError unless `model` maps an image of `image_shape` (C, H, W) to its logits.

    The message calls it `name`. Weights, modes and random streams stay unchanged.
    """
    shape = " x ".join(map(str, image_shape))
    try:
        with torch.no_grad(), _in_eval_mode(model):
            logits = model(torch.full((1, *image_shape), 0.5))
    except (*RUN_ERRORS, ValueError) as error:
        reason = first_line(error)
        raise ValueError(
            f"{name} cannot take images of {shape} ({reason}): change data.image_size, "
            "model.options or model.name"
        ) from error
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (1, num_classes):
        raise ValueError(
            f"{name} gives {found} for an image of {shape}, where logits of {num_classes} classes, "
            f"{(1, num_classes)}, are needed: change model.options or model.name"
        )


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Put all layers in eval mode inside; restore their modes and torch's random stream after."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        model.train(modes[0][1])  # some models clear caches of eval mode here
        for layer, training in modes:
            layer.training = training
