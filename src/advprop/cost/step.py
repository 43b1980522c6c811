"""Measures the cost of one training step, run on the meta device: FLOPs and memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry

from advprop.attacks.fgsm import fgsm
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.branches import attack_mode
from advprop.cost.memory import SavedTensors
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.step import Context
from advprop.shapes import Batch

_NO_ATTACK = PGD(threat_model=Linf(0.0), num_steps=0, step_size=0.0)


class FlopCounter(TorchDispatchMode):
    """Context manager that adds the FLOPs of all operators to `flops`.

    A multiplication and an addition count as two FLOPs. Counts convolutions and matrix products
    (linear layers, attention, their gradients) by torch's formulas. Each gradient of a convolution
    that autograd computes costs as much as the forward pass, also with groups; thus frozen weights,
    input gradients and recomputed layers are counted correctly. Elementwise work (normalisation,
    activations, pooling, losses, optimisers, the sign and clipping of an attack) is not counted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run the operator and count its FLOPs."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


def _convolution_backward(
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    _bias_sizes: Any,
    _stride: Any,
    _padding: Any,
    _dilation: Any,
    transposed: bool,
    _output_padding: Any,
    _groups: int,
    output_mask: Sequence[bool],
    **_: Any,
) -> int:
    """Return the FLOPs of the forward pass, for each gradient computed: of inputs, of weights.

    torch's own formula ignores groups, so it counts a depthwise layer with 1,000 channels 1,000
    times.
    """
    images, kernels, outputs = (list(tensor.shape) for tensor in (inputs, weight, gradient))
    return conv_flop_count(images, kernels, outputs, transposed) * sum(output_mask[:2])


_FORMULAS: dict[Any, Any] = {
    **flop_registry,
    torch.ops.aten.convolution_backward: _convolution_backward,
}


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """FLOPs for one image, and the peak bytes of activations for a whole batch.

    `training_flops` and `attack_flops` are for one pass: the first computes gradients of the
    weights, the second of the image alone. `training_passes` and `attack_passes` add up to the
    method's `passes_per_image`, except for rounding of shares of the batch.
    """

    forward_flops: int
    training_flops: int
    attack_flops: int
    training_passes: float
    attack_passes: float
    activation_bytes: int

    @property
    def flops_per_image(self) -> float:
        """Return the FLOPs of all passes for one clean image."""
        training = self.training_passes * self.training_flops
        return training + self.attack_passes * self.attack_flops

    @property
    def flops(self) -> dict[str, float]:
        """Return the FLOPs of one image as plain data."""
        return {
            "forward": self.forward_flops,
            "training_pass": self.training_flops,
            "attack_step": self.attack_flops,
            "per_image": self.flops_per_image,
        }


def step_cost(
    model: nn.Module, method: Method, batch: Batch, *, float_bytes: int | None = None
) -> StepCost:
    """Return the cost of one step of `method`, with `model` and `batch` on the meta device.

    The training passes are counted in a step whose attack does nothing. The number of attack passes
    is the difference that the attack makes to `passes_per_image`, and one of them is run to count
    its FLOPs. `float_bytes`, if given, replaces the size of saved floating-point numbers. Attention
    runs as plain matrix products. Leaves the model in training mode, with gradients.
    """
    plain = without_attack(method)
    attack_passes = method.passes_per_image - plain.passes_per_image
    plain.prepare(facts_of(batch))
    views = {name: torch.empty_like(batch.images) for name in method.views}
    batch = replace(batch, views=views)
    saved = SavedTensors([*model.parameters(), *model.buffers()], float_bytes=float_bytes)
    model.train()
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounter() as forward, torch.no_grad():
            model(batch.images)
        passes = 0.0
        with FlopCounter() as training, saved, _PassesSeen(model) as seen:
            for number, share in plain.kinds_of_steps.items():
                before = seen.thirds
                plain.forward_backward(model, batch, Context(step=number))
                passes += share * (seen.thirds - before) / (3 * len(batch))
        held = saved if attack_passes else nullcontext()
        with FlopCounter() as attack, held, attack_mode(model):
            fgsm(Linf(1 / 255))(model, batch.images, batch.labels)
    return StepCost(
        forward_flops=round(forward.flops / len(batch)),
        training_flops=round(3 * training.flops / seen.thirds),
        attack_flops=round(attack.flops / len(batch)),
        training_passes=passes,
        attack_passes=attack_passes,
        activation_bytes=saved.peak,
    )


def without_attack(method: Method) -> Method:
    """Return the method with its attack, if any, replaced by one that returns the clean images."""
    return method.with_attack(_NO_ATTACK)


def empty_batch(batch_size: int, image_shape: tuple[int, int, int]) -> Batch:
    """Return a batch on the meta device, where tensors have no data."""
    return Batch(
        images=torch.empty(batch_size, *image_shape, device="meta"),
        labels=torch.empty(batch_size, dtype=torch.int64, device="meta"),
    )


def facts_of(batch: Batch) -> TrainingFacts:
    """Return the training facts of a data set that consists of this batch."""
    channels, height, width = batch.images.shape[1:]
    return TrainingFacts(num_images=len(batch), image_shape=(channels, height, width))


class _PassesSeen(AbstractContextManager["_PassesSeen"]):
    """Counts thirds of passes through `model`: 3 for each image, or 1 without gradients."""

    def __init__(self, model: nn.Module) -> None:
        self.thirds = 0
        self._handle = model.register_forward_pre_hook(self._add)

    def _add(self, _model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.thirds += len(inputs[0]) * (3 if torch.is_grad_enabled() else 1)

    def __exit__(self, *_: object) -> None:
        self._handle.remove()
