"""Run one pass before training, so that a model that cannot take a run's images fails at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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


def not_deterministic_on_gpu(model: nn.Module, image_shape: tuple[int, int, int]) -> list[str]:
    """Return the operations in a pass of `model` that torch cannot make deterministic on a GPU.

    Such operations are listed at `torch.use_deterministic_algorithms`; attention is not among them,
    since it has deterministic kernels in that mode. A forward and a backward pass run on the CPU,
    where all are allowed. Weights, modes and random streams stay unchanged.
    """
    images = torch.full((1, *image_shape), 0.5, requires_grad=True)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with _in_eval_mode(model), Operations() as seen:
        torch.autograd.grad(model(images).sum(), [images, *parameters], allow_unused=True)
    return [name for name in dict.fromkeys(seen.names) if name in _NOT_DETERMINISTIC_ON_GPU]


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


class Operations(TorchDispatchMode):
    """Records the `names` of torch's operations called inside, such as "mul", in order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


_NOT_DETERMINISTIC_ON_GPU = {
    "_adaptive_avg_pool2d_backward",
    "_adaptive_avg_pool3d_backward",
    "_embedding_bag_backward",
    "_upsample_bicubic2d_aa_backward",
    "_upsample_bilinear2d_aa_backward",
    "adaptive_max_pool2d_backward",
    "adaptive_max_pool3d_backward",
    "avg_pool3d_backward",
    "fractional_max_pool2d_backward",
    "fractional_max_pool3d_backward",
    "grid_sampler_2d_backward",
    "grid_sampler_3d_backward",
    "histc",
    "max_unpool2d",
    "max_unpool3d",
    "median",
    "nll_loss2d_forward",
    "put",
    "put_",
    "reflection_pad1d_backward",
    "reflection_pad2d_backward",
    "reflection_pad3d_backward",
    "upsample_bicubic2d_backward",
    "upsample_linear1d_backward",
}
