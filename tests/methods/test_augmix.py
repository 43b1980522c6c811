"""AugMix: its loss is timm's, and its limits are vanilla."""

from __future__ import annotations

import dataclasses
import math
from functools import partial

import pytest
import torch
from case import Case
from test_limits import trained
from timm.loss import JsdCrossEntropy
from tiny import (
    gradients,
    same_tensors,
    seeded,
    tiny_images,
    tiny_labels,
    tiny_net,
    with_views,
)
from torch.nn import functional as F

from advprop.methods.augmix import AugMix, jensen_shannon
from advprop.methods.step import Context
from advprop.methods.vanilla import Vanilla
from advprop.shapes import AugMixed, Batch
from advprop.tasks.multi_label import MultiLabel
from advprop.tasks.task import Classification

CASES = {
    "augmix": Case(
        method=AugMix(),
        weights={"augmix": 12},
        own_losses=("augmix",),
        asks="log_probabilities",
        counts={"augmix": 16},
    ),
    "augmix without consistency": Case(method=AugMix(jsd=0.0)),
}


def batch_for(method: AugMix) -> Batch:
    return with_views(Batch(images=tiny_images(), labels=tiny_labels()), method.views)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("jsd", [12.0, 1.5])
def test_the_loss_is_that_of_timm(jsd: float, smoothing: float) -> None:
    method, model, theirs = AugMix(jsd=jsd), tiny_net().train(), tiny_net().train()
    batch = batch_for(method)
    loss_fn = partial(F.cross_entropy, label_smoothing=smoothing)
    metrics = method.forward_backward(model, batch, Context(loss_fn=loss_fn))
    images = torch.cat([batch.images, batch.views["augmix1"], batch.views["augmix2"]])
    loss = JsdCrossEntropy(num_splits=3, alpha=jsd, smoothing=smoothing)(
        theirs(images), batch.labels.repeat(3)
    )
    loss.backward()
    torch.testing.assert_close(metrics.loss, loss.detach())
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, theirs.get_parameter(name).grad)
    assert same_tensors(dict(model.named_buffers()), dict(theirs.named_buffers()))


def test_views_that_are_the_images_add_nothing_to_vanilla() -> None:
    """But for the last bits, since three equal copies are normalised together."""
    model, vanilla = tiny_net().train(), tiny_net().train()
    images, labels = tiny_images(), tiny_labels()
    views = dict.fromkeys(("augmix1", "augmix2"), images)
    metrics = AugMix().forward_backward(model, Batch(images=images, labels=labels, views=views))
    Vanilla().forward_backward(vanilla, images, labels)
    assert metrics.kinds["augmix"].loss.abs() < 1e-6
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, vanilla.get_parameter(name).grad, atol=1e-5, rtol=1e-4)


def test_without_consistency_it_is_vanilla_on_the_view() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class OfImages(AugMix):
        def step(self, model, batch, context):
            views = dict.fromkeys(self.views, batch.images)
            return super().step(model, dataclasses.replace(batch, views=views), context)

    found, vanilla = trained(OfImages(jsd=0.0), tiny_net()), trained(Vanilla(), tiny_net())
    assert same_tensors(found.state_dict(), vanilla.state_dict())
    assert AugMix(jsd=0.0).views == ("augmix1",)
    assert (AugMix().passes_per_image, AugMix(jsd=0.0).passes_per_image) == (3, 1)


def test_the_divergence_has_its_bounds_and_finite_gradients() -> None:
    certain = torch.eye(3) * 1e4  # probabilities of exactly 0 and 1
    certain.requires_grad_()
    largest = jensen_shannon(certain.log_softmax(dim=1).split(1))
    assert largest.item() == pytest.approx(math.log(3), rel=1e-6)
    largest.backward()
    assert certain.grad.isfinite().all()
    assert jensen_shannon([certain.log_softmax(dim=1)] * 3).abs().item() < 1e-6


def test_metrics_tell_clean_images_and_views_apart() -> None:
    method, model = AugMix(), tiny_net().train()
    batch = batch_for(method)
    metrics = method.forward_backward(model, batch)
    clean, *views = (
        tiny_net()
        .train()(torch.cat([batch.images, *batch.views.values()]))
        .argmax(1)
        .eq(batch.labels.repeat(3))
        .float()
        .split(8)
    )
    assert metrics.kinds["clean"].accuracy == clean.mean()
    assert metrics.kinds["augmix"].accuracy == torch.cat(views).mean()
    torch.testing.assert_close(
        metrics.loss, metrics.kinds["clean"].loss + 12 * metrics.kinds["augmix"].loss
    )


def test_of_several_labels_each_is_made_consistent_by_itself() -> None:
    """As a classification into present and absent."""
    logits = 3 * torch.randn(3, 4, 2, generator=seeded())  # of three versions, images, labels
    found = jensen_shannon([*MultiLabel().log_probabilities(logits.flatten(0, 1)).split(4)])
    pairs = torch.stack([logits, torch.zeros_like(logits)], dim=-1).view(3, 8, 2)
    expected = jensen_shannon([Classification().log_probabilities(part) for part in pairs])
    torch.testing.assert_close(found, expected)


def test_labels_that_are_unknown_are_made_consistent_too() -> None:
    method, model = AugMix(), tiny_net().train()
    batch = dataclasses.replace(batch_for(method), labels=torch.full((8, 5), torch.nan))
    metrics = method.forward_backward(model, batch, Context(task=MultiLabel()))
    assert metrics.kinds["clean"].loss == 0
    assert metrics.kinds["augmix"].loss > 0
    assert any(gradient.any() for gradient in gradients(model).values())


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("jsd", -1.0, "jsd -1.0: give a finite number of at least 0"),
        ("jsd", math.nan, "jsd nan: give a finite number"),
        ("severity", 0.0, "severity 0.0: give one above 0, and at most 10"),
        ("severity", 11.0, "severity 11.0: give one above 0, and at most 10"),
        ("alpha", 0.0, "alpha 0.0: give a finite number above 0"),
        ("alpha", math.inf, "alpha inf: give a finite number above 0"),
        ("width", 0, "width 0: give a whole number from 1 to 100"),
        ("depth", -1, "depth -1: give a whole number from 1 to 100"),
    ],
)
def test_impossible_settings(setting: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AugMix(**{setting: value})  # type: ignore[arg-type]
    if setting != "jsd":
        with pytest.raises(ValueError, match=message):
            AugMixed(**{setting: value})  # type: ignore[arg-type]
