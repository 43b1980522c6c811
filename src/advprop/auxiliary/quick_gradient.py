"""When a function's own formula for the gradient of images alone can stand in for torch's."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad


def images_alone(images: Tensor, *frozen: Tensor | None) -> bool:
    """Is the gradient of `images`, a batch on a CPU, all that autograd may be asked for here?

    Not while anything else that `frozen` needs a gradient, nor under `torch.func`'s transforms,
    forward-mode differentiation or with tensors of a class of their own.
    """
    tensors = [images, *(tensor for tensor in frozen if tensor is not None)]
    return (
        images.requires_grad
        and not any(tensor.requires_grad for tensor in tensors[1:])
        and images.ndim == 4
        and all(
            type(tensor) in (Tensor, nn.Parameter)
            and tensor.device.type == "cpu"
            and tensor.is_floating_point()
            for tensor in tensors
        )
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )
