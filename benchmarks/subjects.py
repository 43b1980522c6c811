"""What is measured: two nets, their batches, and a step of any method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from measuring import Row
from torch import nn

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.config.attacks import PAPER_ATTACK
from advprop.config.methods import method_config
from advprop.cost.step import facts_of
from advprop.methods.base import Method
from advprop.methods.step import Context
from advprop.models.build import build_model
from advprop.randomness import ImageStreams
from advprop.shapes import Batch

NUM_CLASSES = 1000
LAYOUTS = {"channels_last": torch.channels_last, "NCHW": torch.contiguous_format}


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A net, and noise of its size; what an image shows changes no step's cost."""

    architecture: str
    image_size: int
    batch_size: int = 32
    layout: str = "channels_last"

    def __str__(self) -> str:
        return f"{self.architecture}, {self.batch_size} of {self.image_size} pixels" + (
            f", {self.layout}" if self.layout != "channels_last" else ""
        )

    def model(self, auxiliary: tuple[str, ...] = ()) -> nn.Module:
        """The net in training mode, with these branches beside the clean one."""
        model: nn.Module = build_model(self.architecture, num_classes=NUM_CLASSES, in_chans=3)
        if auxiliary:
            model = add_auxiliary_norms(model, auxiliary)
        return model.to(memory_format=LAYOUTS[self.layout]).train()

    def images(self) -> torch.Tensor:
        """Of uniform noise."""
        images = torch.rand(self.batch_size, 3, self.image_size, self.image_size)
        return images.contiguous(memory_format=LAYOUTS[self.layout])

    def batch(self, method: Method) -> Batch:
        """Images with labels and indices, and a view for each branch that asks for one."""
        images, indices = self.images(), torch.arange(self.batch_size)
        views = dict.fromkeys(method.views, images)
        return Batch(images=images, labels=indices % NUM_CLASSES, indices=indices, views=views)

    def quick(self, batch_size: int = 10) -> Subject:
        """The same with fewer images, which are smaller."""
        return replace(self, batch_size=batch_size, image_size=64)

    def step(self, method: Method) -> Callable[[], object]:
        """One step of `method` on a model of its own: gradients zeroed, and made anew.

        Random streams are made as the trainer makes them. The optimiser's step, which is the same
        for all methods, is left out.
        """
        model, batch = self.model(method.auxiliary), self.batch(method)
        method.prepare(facts_of(batch))

        def step() -> None:
            model.zero_grad(set_to_none=True)
            streams = ImageStreams.for_batch(0, 0, batch.indices)
            method.forward_backward(model, batch, Context(progress=0.25, generator=streams))

        return step


RESNET18 = Subject(architecture="resnet18", image_size=96)
EFFICIENTNET_B0 = Subject(architecture="tf_efficientnet_b0", image_size=128)


def method_of(name: str, num_steps: int = 5) -> Method:
    """The registered method, with the paper's attack in so many steps if it attacks."""
    return method_config(name, PAPER_ATTACK.model_copy(update={"num_steps": num_steps})).build()


def steps_that_run(
    steps: dict[str, Callable[[], Callable[[], object]]], skipped: list[Row]
) -> dict[str, Callable[[], object]]:
    """The steps, each made and tried once; what cannot run becomes a row of `skipped`."""
    made = {}
    for name, make in steps.items():
        try:
            action = make()
            action()
        except (ValueError, TypeError, KeyError) as error:
            skipped.append(Row(what=name, note=f"not run: {error}"))
        else:
            made[name] = action
    return made
