"""Every method learns whatever a task says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from case import Case
from method_cases import CASES
from tiny import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    gradients,
    same_tensors,
    seeded,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_net,
    with_views,
)
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from advprop.attacks.objectives import random_other_class, untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.schedule import GrowingSteps
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.branches import attack_mode
from advprop.methods.adversarial import Adversarial
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Attacking, Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.fine_grained import FineGrained
from advprop.methods.mixed import Mixed
from advprop.methods.shuffling import shuffled
from advprop.methods.step import Context, StepMetrics, adversarial_images
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch
from advprop.tasks.multi_label import MultiLabel
from advprop.tasks.task import Classification, Task

every_method = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())


class Listed(Task):
    """A classification that the library knows nothing of: labels in a list, one loss a batch."""

    splits = False

    def loss(self, outputs: Tensor, labels: list[dict[str, int]]) -> Tensor:
        return F.cross_entropy(outputs, torch.tensor([label["class"] for label in labels]))

    def metrics(self, outputs: Tensor, labels: list[dict[str, int]]) -> Mapping[str, Tensor]:
        return {"largest": outputs.detach().max()}


def away_from_labels(method: Method) -> Method:
    """The same method, whose attacks aim at no class."""
    if isinstance(method, FineGrained):
        attacks = {
            name: dataclasses.replace(attack, targets=untargeted)
            for name, attack in method.attacks.items()
        }
        return dataclasses.replace(method, attacks=attacks)
    if isinstance(method, Attacking):
        return method.with_attack(dataclasses.replace(method.attack, targets=untargeted))
    return dataclasses.replace(method)


def step(case: Case, labels: Any, task: Task) -> tuple[nn.Module, StepMetrics]:
    method = away_from_labels(case.method)
    method.prepare(TrainingFacts(num_images=8, image_shape=IMAGE_SHAPE))
    model = tiny_branched_net(auxiliary=method.auxiliary) if method.auxiliary else tiny_net()
    batch = Batch(images=tiny_images(), labels=labels, indices=torch.arange(8))
    batch = with_views(batch, method.views)
    context = Context(task=task, progress=case.progress, generator=seeded())
    return model, method.forward_backward(model.train(), batch, context)


@every_method
def test_a_users_task_is_learnt_as_one_of_ours(case: Case) -> None:
    """Where one pass has one loss for both kinds of images, their mean; else kind by kind."""
    listed = [{"class": label} for label in tiny_labels().tolist()]
    if case.asks:
        with pytest.raises(ValueError, match=f"Listed has .*: override `{case.asks}`"):
            step(case, listed, Listed())
        return
    if getattr(case.method, "form", None) == "joint" or case.method.auxiliary == ():
        weights = {kind: case.weights.get(kind, 1.0) for kind in ("clean", "adversarial")}
        counts = {kind: case.counts.get(kind, 8) for kind in weights}
        assert len({weights[kind] / counts[kind] for kind in weights}) == 1  # as such a loss needs
    ours, expected = step(case, tiny_labels(), Classification())
    theirs, found = step(case, listed, Listed())
    torch.testing.assert_close(found.loss, expected.loss)
    for kind in found.kinds.values():
        assert set(kind.metrics) == {"largest"}
        with pytest.raises(KeyError):
            kind.accuracy  # noqa: B018
    for name, gradient in gradients(theirs).items():
        if name != "3.bias":  # a bias before BatchNorm has no effect
            torch.testing.assert_close(
                gradient, ours.get_parameter(name).grad, atol=2e-5, rtol=1e-3
            )


@every_method
def test_several_labels_an_image_are_learnt(case: Case) -> None:
    labels = torch.rand(8, NUM_CLASSES, generator=seeded()).round()
    labels[::2, 1] = torch.nan
    model, metrics = step(case, labels, MultiLabel())
    assert metrics.loss.isfinite()
    for name, gradient in gradients(model).items():
        assert gradient.isfinite().all(), name
        assert gradient.any(), name
    for kind in metrics.kinds.values():
        assert 0 < kind.accuracy < 1


def test_one_loss_for_all_images_needs_images_that_count_alike() -> None:
    case = Case(method=dataclasses.replace(CASES["fast"].method, form="joint"))
    with pytest.raises(ValueError, match=r"Listed has one loss .* clean, adversarial .* differ"):
        step(case, [{"class": 0}] * 8, Listed())


@pytest.mark.parametrize("method", [Adversarial, AdvProp, Mixed])
def test_an_attack_towards_a_class_is_refused(method: type[Attacking]) -> None:
    attack = PGD(threat_model=Linf(0.1), num_steps=1, step_size=0.1, targets=random_other_class)
    with pytest.raises(ValueError, match=r"Listed has no classes .* random_other_class does"):
        method(attack=attack).forward_backward(
            tiny_branched_net().train(), tiny_images(), [{"class": 0}] * 8, Context(task=Listed())
        )


def test_an_attack_of_ones_own_gets_the_labels_as_they_are() -> None:
    labels = [{"class": 0}] * 8
    met: list[Any] = []

    class Brighter:
        passes_per_image = 0.0

        def __call__(self, model: Any, images: Tensor, labels: Any, **_: Any) -> Tensor:
            met.append(labels)
            return (images + 0.1).clamp(0, 1)

    context = Context(task=Listed())
    AdvProp(attack=Brighter()).forward_backward(
        tiny_branched_net().train(), tiny_images(), labels, context
    )
    assert met == [labels]


def test_a_part_of_the_loss_can_be_attacked() -> None:
    """Here the logit of class 2 alone, which then grows, whatever is learnt."""

    class Second(Classification):
        def attacked_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
            return outputs[:, 2].mean()

        objective = Task.objective

    model, images = tiny_net().train(), tiny_images()
    attack = PGD(threat_model=Linf(0.1), num_steps=3, step_size=0.05, targets=untargeted)
    batch = Batch(images=images, labels=tiny_labels())
    found = Second().adversarial_images(attack, model.eval(), batch, seeded())
    assert (model(found)[:, 2] > model(images)[:, 2]).all()


def test_a_method_attacks_an_objective_of_its_own() -> None:
    """Made of the unwrapped model in `attack_mode`, raised by the attack at this progress."""
    model, batch = tiny_net().train(), Batch(images=tiny_images(), labels=tiny_labels())
    attack = PGD(threat_model=Linf(0.1), num_steps=3, step_size=0.05)
    growing = GrowingSteps(attack=attack, first_steps=1)
    context = Context(progress=0.5, generator=seeded())

    def second(module: nn.Module) -> Callable[[Tensor], Tensor]:
        assert module is model
        assert not module.training
        assert not any(parameter.requires_grad for parameter in module.parameters())
        return lambda images: module(images)[:, 2].sum()

    wrapped = nn.Module.__new__(DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = model
    found = adversarial_images(growing, wrapped, batch, context, second)
    assert model.training
    with attack_mode(model):
        two_steps = dataclasses.replace(attack, num_steps=2)
        expected = two_steps.maximise(second(model), batch.images, generator=seeded())
    assert torch.equal(found, expected)


def test_an_attack_that_is_no_gradient_attack_is_refused_an_objective() -> None:
    class Brighter:
        passes_per_image = 0.0

        def __call__(self, model: Any, images: Tensor, labels: Any, **_: Any) -> Tensor:
            return images

    batch = Batch(images=tiny_images(), labels=tiny_labels())
    with pytest.raises(ValueError, match=r"attack Brighter: .*; give a GradientAttack"):
        adversarial_images(Brighter(), tiny_net(), batch, Context(), lambda _: torch.sum)


def test_a_loss_function_is_short_for_a_classification() -> None:
    def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, label_smoothing=0.3)

    contexts = Context(loss_fn=loss_fn), Context(task=Classification(loss_fn))
    assert contexts[0] == contexts[1]
    assert dataclasses.replace(contexts[0], step=3).task == Classification(loss_fn)
    model = tiny_net().train()
    metrics = Vanilla().forward_backward(model, tiny_images(), tiny_labels(), contexts[0])
    assert torch.equal(metrics.loss, loss_fn(tiny_net().train()(tiny_images()), tiny_labels()))


def test_labels_in_a_list_do_not_change_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DistributedDataParallel, "__init__", nn.Module.__init__)
    batch = Batch(images=tiny_images(), labels=[0] * 8)
    with pytest.raises(TypeError, match="labels are a list, and a tensor is needed"):
        shuffled(batch, DistributedDataParallel(), step=0)
    assert shuffled(batch, tiny_net(), step=0) is batch


def test_same_tensors_of_both_calls() -> None:
    """A batch and a context, or images, labels in a list and a context."""
    labels, context = [{"class": label} for label in tiny_labels().tolist()], Context(task=Listed())
    found = []
    for arguments in (
        (Batch(images=tiny_images(), labels=labels), context),
        (tiny_images(), labels, context),
    ):
        model = tiny_net().train()
        Vanilla().forward_backward(model, *arguments)
        found.append(gradients(model))
    assert same_tensors(*found)
