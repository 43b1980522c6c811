"""Attack steps that run a net's first layers alone, between steps that run all of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advprop.attacks.pgd import PGD, Goal, clean_images
from advprop.randomness import Randomness
from advprop.shapes import Images, Labels, LogitsFn


@dataclass(frozen=True, kw_only=True)
class FirstLayers:
    """Each step of `attack` is followed by `inner_steps` through the layers up to `until` alone.

    In these the gradient at the output of `until`, a submodule's name, stays that of the last whole
    pass: YOPO (Zhang et al., NeurIPS 2019, arXiv 1905.00877, algorithm 1). Where the layers up to
    there are linear, an inner step goes where the whole one went. Inner steps count as no pass:
    they cost the share of the net that lies before `until`. Attacks modules only.

    Raises ValueError for negative inner steps, and for a module without `until`.
    """

    attack: PGD
    until: str
    inner_steps: int = 1

    def __post_init__(self) -> None:
        if self.inner_steps < 0:
            raise ValueError(f"inner_steps {self.inner_steps}: give at least 0")

    @property
    def passes_per_image(self) -> float:
        """The whole steps."""
        return self.attack.passes_per_image

    def __call__(
        self,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        *,
        generator: Randomness = None,
    ) -> Images:
        """Adversarial versions of `images`, as `PGD` gives them."""
        layer = self._layer(logits_fn)
        clean = clean_images(images)
        goal = Goal(self.attack.targets, labels, generator)
        adversarial = self.attack.start(clean, generator)
        for _ in range(self.attack.num_steps):
            gradients: list[Tensor] = []
            handle = layer.register_forward_hook(_keep_gradient(gradients))
            try:
                gradient = goal.gradient(logits_fn, adversarial)
            finally:
                handle.remove()
            adversarial = self.attack.ascend(clean, adversarial, gradient)
            for _ in range(self.inner_steps):
                gradient = _first_gradient(logits_fn, layer, adversarial, gradients[-1])
                adversarial = self.attack.ascend(clean, adversarial, gradient)
        return adversarial

    def _layer(self, logits_fn: LogitsFn) -> nn.Module:
        if not isinstance(logits_fn, nn.Module):
            raise ValueError("only a module has first layers: attack the model itself")
        layers: dict[str, nn.Module] = dict(logits_fn.named_modules())
        if self.until not in layers:
            near = [name for name in layers if name.count(".") <= 1 and name]
            raise ValueError(f'until="{self.until}": the model has {", ".join(near[:20])}')
        return layers[self.until]


class _Reached(Exception):  # noqa: N818 (no error)
    """The layer's output: the rest of the forward pass is not needed."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def _keep_gradient(gradients: list[Tensor]) -> Callable[..., None]:
    def hook(layer: nn.Module, inputs: object, output: Tensor) -> None:
        output.register_hook(lambda gradient: gradients.append(gradient.detach()))

    return hook


def _first_gradient(model: LogitsFn, layer: nn.Module, images: Images, above: Tensor) -> Tensor:
    """The images' gradient, with that of the layer's output given."""

    def stop(layer: nn.Module, inputs: object, output: Tensor) -> None:
        raise _Reached(output)

    handle = layer.register_forward_hook(stop)
    try:
        with torch.enable_grad():
            point = images.detach().requires_grad_()
            model(point)
        raise RuntimeError("the model did not run the layer")
    except _Reached as reached:
        (gradient,) = torch.autograd.grad(reached.output, point, above)
    finally:
        handle.remove()
    return gradient
