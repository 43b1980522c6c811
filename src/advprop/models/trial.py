"""One small forward pass, so that a model which cannot take a run's images shows at once."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advprop.files.parsing import first_line

RUN_ERRORS = (RuntimeError, AssertionError, TypeError, IndexError, AttributeError)
"""What models raise for images of a size they cannot take."""


def check_forward(
    model: nn.Module,
    name: str,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
) -> None:
    """Raise ValueError unless the model makes logits of an image of (channels, height, width).

    Weights, modes and random streams are as before after it.
    """
    modes = [(layer, layer.training) for layer in model.modules()]
    shape = " x ".join(map(str, image_shape))
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model(torch.full((1, *image_shape), 0.5))
    except (*RUN_ERRORS, ValueError) as error:
        reason = first_line(error)
        raise ValueError(
            f"{name} cannot take images of {shape} ({reason}): change data.image_size, "
            "model.options or model.name"
        ) from error
    finally:
        model.train(modes[0][1])  # some models clear what they cache in eval mode
        for layer, training in modes:
            layer.training = training
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (1, num_classes):
        raise ValueError(
            f"{name} gives {found} for an image of {shape}, where logits of {num_classes} classes, "
            f"{(1, num_classes)}, are needed: change model.options or model.name"
        )
