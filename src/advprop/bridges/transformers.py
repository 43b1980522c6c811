"""transformers: image classifiers that take images in [0, 1], and a Trainer for methods."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import BaseImageProcessor, PreTrainedModel, Trainer

from advprop.methods.base import Method
from advprop.methods.step import Context
from advprop.models.standardize import Standardized
from advprop.shapes import Images, Logits


class ImageClassifier(Standardized):
    """A transformers model that standardises images by its processor's mean and std.

    It takes images of `processor(images, do_normalize=False)`, in [0, 1], and returns logits.
    `.model` is the transformers model; after branches are removed, its `save_pretrained` writes a
    plain model.
    """

    def __init__(self, model: PreTrainedModel, processor: BaseImageProcessor) -> None:
        super().__init__(model, mean=processor.image_mean, std=processor.image_std)
        self.config = model.config

    def forward(self, pixel_values: Images) -> Logits:
        """Return the logits, shape [batch, classes], of images in [0, 1]."""
        logits: Logits = self.model((pixel_values - self.mean) / self.std).logits
        return logits


class MethodTrainer(Trainer):
    """transformers' Trainer that trains an `ImageClassifier` with `method`.

    Examples have "pixel_values" in [0, 1] and "labels". `method` must have a `loss`;
    `label_smoothing_factor` applies, `compute_loss_func` is ignored.
    """

    def __init__(self, *args: Any, method: Method, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.method = method
        self.label_names = ["labels"]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, **_: Any
    ) -> Any:
        """Return the method's loss in training, the clean branch's cross-entropy in evaluation."""
        images, labels = inputs["pixel_values"], inputs["labels"]
        loss_fn = partial(F.cross_entropy, label_smoothing=self.args.label_smoothing_factor)
        if model.training:
            step, epoch = self.state.global_step, int(self.state.epoch or 0)
            progress = step / self.state.max_steps
            context = Context(progress=progress, step=step, epoch=epoch, loss_fn=loss_fn)
            return self.method.loss(model, images, labels, context)
        logits = model(images)
        loss = loss_fn(logits, labels)
        return (loss, {"logits": logits}) if return_outputs else loss
