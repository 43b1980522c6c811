"""MaxUp: the draw on which the loss is highest, image by image."""

from __future__ import annotations

import copy
import dataclasses
from functools import partial

import pytest
import torch
from case import Case
from test_limits import trained
from tiny import (
    NUM_CLASSES,
    gradients,
    same_tensors,
    seeded,
    tiny_images,
    tiny_labels,
    tiny_net,
    with_views,
)
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.methods.maxup import MaxUp
from advprop.methods.step import Context
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch
from advprop.tasks.multi_label import MultiLabel
from advprop.tasks.task import Classification, Task

CASES = {"maxup": Case(method=MaxUp(), asks="losses", without_gradients=True)}


def batch_for(method: MaxUp) -> Batch:
    return with_views(Batch(images=tiny_images(), labels=tiny_labels()), method.views)


def worst_by_hand(model: nn.Module, batch: Batch) -> Tensor:
    """Image by image, each draw by itself."""
    model, chosen = copy.deepcopy(model).eval(), []
    for row, label in enumerate(batch.labels.tolist()):
        draws = [images[row] for images in (batch.images, *batch.views.values())]
        losses = [-model(draw[None]).log_softmax(dim=1)[0, label].item() for draw in draws]
        chosen.append(draws[losses.index(max(losses))])
    return torch.stack(chosen)


@pytest.mark.parametrize("draws", [2, 4])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_vanilla_on_the_worst_draws(draws: int, smoothing: float) -> None:
    method = MaxUp(draws=draws)
    batch, model, vanilla = batch_for(method), tiny_net(dropout=0.3), tiny_net(dropout=0.3)
    worst = worst_by_hand(model, batch)
    context = Context(loss_fn=partial(F.cross_entropy, label_smoothing=smoothing))
    torch.manual_seed(0)
    metrics = method.forward_backward(model.train(), batch, context)
    torch.manual_seed(0)
    expected = Vanilla().forward_backward(vanilla.train(), worst, batch.labels, context)
    assert torch.equal(metrics.loss, expected.loss)
    assert same_tensors(gradients(model), gradients(vanilla))
    assert same_tensors(dict(model.named_buffers()), dict(vanilla.named_buffers()))
    taken = [(worst == images).flatten(1).all(dim=1) for images in batch.views.values()]
    assert 0 < sum(map(torch.sum, taken)) < 8  # some of each


def test_one_draw_is_vanilla() -> None:
    found, vanilla = trained(MaxUp(draws=1), tiny_net()), trained(Vanilla(), tiny_net())
    assert same_tensors(found.state_dict(), vanilla.state_dict())
    assert MaxUp(draws=1).views == ()
    assert MaxUp(draws=1).passes_per_image == 1


def test_draws_that_are_alike_are_vanilla() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Alike(MaxUp):
        def step(self, model, batch, context):
            views = dict.fromkeys(self.views, batch.images)
            return super().step(model, dataclasses.replace(batch, views=views), context)

    found, vanilla = trained(Alike(), tiny_net()), trained(Vanilla(), tiny_net())
    assert same_tensors(found.state_dict(), vanilla.state_dict())


@pytest.mark.parametrize("draws", [2, 4, 10])
def test_a_forward_pass_is_a_third(draws: int) -> None:
    assert MaxUp(draws=draws).passes_per_image == pytest.approx(1 + draws / 3)
    assert len(MaxUp(draws=draws).views) == draws - 1


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        (Classification(), tiny_labels()),
        (Classification(), torch.rand(8, NUM_CLASSES, generator=seeded()).softmax(dim=1)),
        (MultiLabel(), torch.rand(8, NUM_CLASSES, generator=seeded()).round()),
    ],
    ids=["classes", "mixtures", "labels"],
)
def test_losses_of_images_are_those_of_batches_of_one(task: Task, labels: Tensor) -> None:
    logits = torch.randn(8, NUM_CLASSES, generator=seeded())
    if isinstance(task, MultiLabel):
        labels[0, :2], labels[1] = torch.nan, torch.nan
    torch.testing.assert_close(task.losses(logits, labels), Task.losses(task, logits, labels))


@pytest.mark.parametrize("draws", [0, -1, 101])
def test_impossible_draws(draws: int) -> None:
    with pytest.raises(ValueError, match=f"draws {draws}: give a whole number from 1 to 100"):
        MaxUp(draws=draws)
