"""A recipe's training step as `advprop train` makes it, without its data and weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.config.run import RunConfig
from advprop.methods.step import Context, StepMetrics
from advprop.randomness import ImageStreams
from advprop.training.engine import prepare_model
from advprop.training.optim import build_optimizer


def recipe_model(config: RunConfig, num_classes: int) -> tuple[nn.Module, Optimizer]:
    """Model, with branches, and optimiser; random weights, on the CPU."""
    torch.manual_seed(0)
    size, auxiliary = config.data.image_size, config.method.build().auxiliary
    plain = config.model.without_weights().build(
        num_classes=num_classes, image_shape=(3, size, size)
    )
    branched = add_auxiliary_norms(plain, auxiliary)
    model = prepare_model(branched, config.training, torch.device("cpu")).train()
    return model, build_optimizer(model, config.training)


def recipe_step(
    config: RunConfig, model: nn.Module, optimizer: Optimizer, images: Tensor, labels: Tensor
) -> Callable[[], StepMetrics]:
    """Gradients zeroed, made anew, and a step of the optimiser."""
    method = config.method.build()
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> StepMetrics:
        optimizer.zero_grad(set_to_none=True)
        streams = ImageStreams.for_batch(0, 0, range(len(images)))
        metrics = method.forward_backward(model, images, labels, Context(generator=streams))
        optimizer.step()
        return metrics

    return step
