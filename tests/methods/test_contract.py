"""What every method promises, whatever it does."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import pytest
import torch
from case import ATTACK, Case
from method_cases import CASES
from tiny import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    active_branch,
    branches_of,
    gradients,
    modes,
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

from advprop.auxiliary.branches import branch_names, use_branch
from advprop.auxiliary.gradients import branch_parameters
from advprop.methods.adversarial import Adversarial
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.mixed import Mixed
from advprop.methods.pyramid import Pyramid
from advprop.methods.step import Context, StepMetrics, perturbation_size
from advprop.methods.vanilla import Vanilla
from advprop.randomness import ImageStreams
from advprop.shapes import Batch
from advprop.tasks.task import Classification

every_method = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
advprop_forms = pytest.mark.parametrize("form", ["separate", "joint", "summed"])


def net_for(method: Method, **options: float) -> nn.Module:
    """A model with the branches that `method` names, in training mode."""
    if not method.auxiliary:
        return tiny_net(**options).train()
    return tiny_branched_net(auxiliary=method.auxiliary, **options).train()


def branched_net_for(method: Method) -> nn.Module:
    """A model with an adversarial branch at least, whether `method` has need of it or not."""
    return tiny_branched_net(auxiliary=method.auxiliary or ("adversarial",)).train()


def prepared(method: Method) -> Method:
    """The same, remembering nothing, and told of the images."""
    fresh = dataclasses.replace(method)  # type: ignore[type-var]
    fresh.prepare(TrainingFacts(num_images=8, image_shape=IMAGE_SHAPE))
    return fresh


def batch_for(method: Method, images: Tensor | None = None, labels: Tensor | None = None) -> Batch:
    """A batch with the views that `method` learns from."""
    batch = Batch(
        images=tiny_images() if images is None else images,
        labels=tiny_labels() if labels is None else labels,
        indices=torch.arange(8),
    )
    return with_views(batch, method.views)


def run(
    case: Case | Method,
    model: nn.Module,
    *,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    seed: int = 0,
    **context: Any,
) -> StepMetrics:
    if isinstance(case, Method):
        case = Case(method=case)
    batch = batch_for(case.method, images, labels)
    context = {"generator": seeded(seed), "progress": case.progress, **context}
    # a method may remember: each call is a first step
    return prepared(case.method).forward_backward(model, batch, Context(**context))


# --- left as found


class FailingNet(nn.Module):
    """Raises in its forward call number `fails_at`."""

    def __init__(self, net: nn.Module, fails_at: int | None) -> None:
        super().__init__()
        self.net, self.fails_at, self.calls = net, fails_at, 0

    def forward(self, images: Tensor) -> Tensor:
        if self.calls == self.fails_at:
            raise KeyError("the forward pass")
        self.calls += 1
        return self.net(images)


def mixed_up(model: nn.Module) -> nn.Module:
    """Some layers in eval mode, some parameters frozen."""
    norms = [layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    norms[-1].eval()
    next(model.parameters()).requires_grad_(False)
    return model


@every_method
def test_modes_and_flags_are_left_as_found(case: Case) -> None:
    model = mixed_up(net_for(case.method))
    found = modes(model)
    run(case, model)
    assert modes(model) == found
    assert next(model.parameters()).grad is None


@every_method
@pytest.mark.parametrize("branch", ["clean", "adversarial", ("clean", "adversarial")], ids=str)
def test_branch_is_left_as_found(case: Case, branch: str | tuple[str, ...]) -> None:
    model = branched_net_for(case.method)
    with use_branch(model, branch):
        run(case, model)
        assert active_branch(model) == branch


@every_method
@pytest.mark.parametrize("fails_at", range(5))
def test_branch_and_modes_survive_a_failing_forward_pass(case: Case, fails_at: int) -> None:
    model = FailingNet(mixed_up(branched_net_for(case.method)), fails_at)
    found = modes(model)
    with use_branch(model, "adversarial"):
        with suppress(KeyError):  # a method with fewer passes does not fail
            run(case, model)
        assert active_branch(model) == "adversarial"
    assert modes(model) == found


@every_method
@pytest.mark.parametrize("part", ["loss_fn", "backward"])
def test_branch_and_modes_survive_a_failing_loss(case: Case, part: str) -> None:
    def fail(*_: Tensor) -> Tensor:
        raise KeyError(part)

    model = mixed_up(branched_net_for(case.method))
    found = modes(model)
    with use_branch(model, "adversarial"), pytest.raises(KeyError):
        run(case, model, **{part: fail})
    assert active_branch(model) == "clean"
    assert modes(model) == found


@every_method
@pytest.mark.parametrize("fails_at", [0, 1, 2, None], ids=str)
def test_weights_are_left_as_found(case: Case, fails_at: int | None) -> None:
    model = FailingNet(net_for(case.method), fails_at)
    before = copy.deepcopy(dict(model.named_parameters()))
    # a method with fewer passes does not fail
    with nullcontext() if fails_at is None else suppress(KeyError):
        run(case, model)
    assert same_tensors(before, dict(model.named_parameters()))


@every_method
def test_images_and_labels_are_left_as_found(case: Case) -> None:
    images, labels = tiny_images(), tiny_labels()
    run(case, net_for(case.method), images=images, labels=labels)
    assert torch.equal(images, tiny_images())
    assert torch.equal(labels, tiny_labels())
    assert not images.requires_grad


# --- gradients


@every_method
def test_a_gradient_for_every_parameter(case: Case) -> None:
    model = net_for(case.method)
    run(case, model)
    for name, gradient in gradients(model).items():
        assert gradient is not None, name
        assert gradient.isfinite().all(), name
        if name != "3.bias":  # a bias before BatchNorm has no effect
            assert gradient.abs().max() > 1e-6, name


@every_method
def test_gradients_are_added(case: Case) -> None:
    # momentum 0 keeps the running statistics, and with them the attack, the same
    model = net_for(case.method, momentum=0.0)
    run(case, model)
    once = gradients(model)
    run(case, model)
    for name, gradient in gradients(model).items():
        torch.testing.assert_close(gradient, 2 * once[name])


@every_method
def test_same_generator_same_gradients(case: Case) -> None:
    def step(generator: Callable[[], torch.Generator | ImageStreams]) -> dict[str, Tensor | None]:
        model = net_for(case.method)
        run(case, model, generator=generator())
        return gradients(model)

    def streams(seed: int) -> ImageStreams:
        return ImageStreams.for_batch(seed, 0, range(8))

    assert same_tensors(step(lambda: seeded(1)), step(lambda: seeded(1)))
    assert same_tensors(step(lambda: streams(1)), step(lambda: streams(1)))


@every_method
def test_other_generator_other_gradients(case: Case) -> None:
    found = []
    for seed in (1, 2):
        model = net_for(case.method)
        metrics = run(case, model, seed=seed)
        found.append(gradients(model))
    draws = metrics.perturbation is not None if case.draws is None else case.draws
    assert same_tensors(*found) != draws


@every_method
def test_backward_is_the_callers(case: Case) -> None:
    plain, scaled = net_for(case.method), net_for(case.method)
    run(case, plain)
    run(case, scaled, backward=lambda loss: (4 * loss).backward())
    for name, gradient in gradients(scaled).items():
        torch.testing.assert_close(gradient, 4 * plain.get_parameter(name).grad)


@every_method
def test_loss_is_the_callers(case: Case) -> None:
    model = net_for(case.method)
    metrics = run(case, model, loss_fn=lambda logits, labels: 0 * logits.sum() + 3)
    assert {kind.loss.item() for n, kind in metrics.kinds.items() if n not in case.own_losses} == {
        3
    }
    if not case.own_losses:
        assert all(gradient.count_nonzero() == 0 for gradient in gradients(model).values())


@every_method
def test_gradients_under_autocast(case: Case) -> None:
    full, half = net_for(case.method), net_for(case.method)
    run(case, full)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        metrics = run(case, half)
    assert metrics.loss.isfinite()
    for name, gradient in gradients(half).items():
        exact = full.get_parameter(name).grad
        if name != "3.bias":
            assert F.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0) > 0.9, name


@every_method
def test_weights_that_change_are_seen_under_autocast(case: Case) -> None:
    """Autocast keeps copies of the weights while it lasts, and does not see that they change."""
    found = []
    for keeps_copies in (True, False):
        model = net_for(case.method)
        with torch.autocast("cpu", dtype=torch.bfloat16, cache_enabled=keeps_copies):
            losses = [run(case, model).loss]
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1.5)
            losses.append(run(case, model).loss)
            found.append([*losses, model(tiny_images())])
    assert equal(*found)


# --- branches


def state_of(branches: list[nn.Module]) -> list[Tensor]:
    return [tensor.clone() for layer in branches for tensor in layer.state_dict().values()]


def equal(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@every_method
def test_a_method_keeps_to_the_branches_it_names(case: Case) -> None:
    model = branched_net_for(case.method)
    auxiliary = branch_names(model)[1:]
    before = {name: state_of(branches_of(model, name)) for name in auxiliary}
    run(case, model)
    for name in auxiliary:
        untouched = equal(before[name], state_of(branches_of(model, name)))
        owned = branch_parameters(model)[name]
        without = all(parameter.grad is None for parameter in owned)
        assert untouched == without == (name not in case.method.auxiliary)


@every_method
def test_statistics_count_a_batch_once(case: Case) -> None:
    """As often as kinds of images go through a branch in passes of their own."""
    slow, fast = net_for(case.method, momentum=0.1), net_for(case.method, momentum=1.0)
    before = copy.deepcopy(slow).state_dict()
    run(case, slow)
    run(case, fast)
    after, last = slow.state_dict(), fast.state_dict()
    for name, value in before.items():
        branch = name.split(".")[2] if "branches" in name else "clean"
        passes = case.statistics.get(branch, 1)
        if name.endswith("num_batches_tracked"):
            assert after[name] - value == passes
        elif "running" in name and passes == 1:
            torch.testing.assert_close(after[name], 0.9 * value + 0.1 * last[name])


@advprop_forms
def test_each_kind_of_image_reaches_its_own_branch_only(form: str) -> None:
    """Statistics and gradients of a branch equal those of a net that sees its images alone."""
    model = tiny_branched_net().train()
    adversarial_images: list[Tensor] = []

    class Remembered:
        passes_per_image = ATTACK.passes_per_image

        def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
            adversarial_images.append(ATTACK(*args, **kwargs))
            return adversarial_images[0]

    run(AdvProp(attack=Remembered(), form=form), model)
    owned = branch_parameters(model)
    for branch, images in (("clean", tiny_images()), ("adversarial", adversarial_images[0])):
        alone = tiny_net().train()
        Vanilla().forward_backward(alone, images, tiny_labels())
        norms = [layer for layer in alone.modules() if isinstance(layer, nn.BatchNorm2d)]
        for ours, theirs in zip(branches_of(model, branch), norms, strict=True):
            torch.testing.assert_close(ours.running_mean, theirs.running_mean)
            torch.testing.assert_close(ours.running_var, theirs.running_var)
            assert ours.num_batches_tracked == theirs.num_batches_tracked
        theirs = [parameter for layer in norms for parameter in layer.parameters()]
        for mine, parameter in zip(owned[branch], theirs, strict=True):
            torch.testing.assert_close(mine.grad, parameter.grad)


@advprop_forms
def test_without_a_kinds_loss_its_branch_gets_no_gradient(form: str) -> None:
    for weights, silent in (((1.0, 0.0), "adversarial"), ((0.0, 1.0), "clean")):
        model = tiny_branched_net().train()
        method = AdvProp(
            attack=ATTACK, form=form, clean_weight=weights[0], adversarial_weight=weights[1]
        )
        run(method, model)
        for name, owned in branch_parameters(model).items():
            heard = any(parameter.grad.count_nonzero() for parameter in owned)
            assert heard == (name != silent)


def test_advprop_needs_branches() -> None:
    with pytest.raises(ValueError, match="call add_auxiliary_norms"):
        run(AdvProp(attack=ATTACK), tiny_net())


# --- cost and metrics


def counted_passes(case: Case) -> float:
    model, seen = net_for(case.method), 0

    def count(_: nn.Module, inputs: tuple[Tensor], logits: Tensor) -> None:
        nonlocal seen
        # what is counted has a backward pass, or is a third of one
        assert logits.requires_grad or case.without_gradients
        seen += len(inputs[0]) * (3 if logits.requires_grad else 1)

    model.register_forward_hook(count)
    run(case, model)
    return seen / (3 * 8)


@every_method
def test_stated_passes_are_those_counted(case: Case) -> None:
    if not case.averages:
        stated = pytest.approx(case.method.passes_per_image, rel=1e-12)  # sums of thirds
        assert counted_passes(case) == stated


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_stated_passes_are_averaged_over_training(share: float) -> None:
    method = AdversarialThenClean(attack=ATTACK, adversarial_share=share)
    counted = [counted_passes(Case(method=method, progress=step / 8)) for step in range(8)]
    assert sum(counted) / 8 == method.passes_per_image


@pytest.mark.parametrize("num_steps", [0, 1, 5])
def test_formulas_of_cost(num_steps: int) -> None:
    attack = dataclasses.replace(ATTACK, num_steps=num_steps)
    assert Vanilla().passes_per_image == 1
    assert CASES["fast"].method.passes_per_image == 1.5
    assert Adversarial(attack=attack).passes_per_image == num_steps + 1
    assert Mixed(attack=attack).passes_per_image == num_steps + 2
    assert AdvProp(attack=attack).passes_per_image == num_steps + 2
    assert Pyramid(attack=attack).passes_per_image == num_steps + 2
    assert CASES["universal"].method.passes_per_image == 2
    assert CASES["advprop_lean"].method.passes_per_image == 1
    assert AdversarialThenClean(attack=attack).passes_per_image == 1 + num_steps / 2


@every_method
def test_metrics(case: Case) -> None:
    model = net_for(case.method)
    metrics = run(case, model)
    summed = sum(case.weights.get(name, 1) * kind.loss for name, kind in metrics.kinds.items())
    torch.testing.assert_close(metrics.loss, summed)
    for name, kind in metrics.kinds.items():
        count = case.counts.get(name, 8)
        assert not kind.loss.requires_grad
        assert 0 <= kind.accuracy <= 1
        torch.testing.assert_close(kind.accuracy * count, (kind.accuracy * count).round())
        assert kind.share == count / 8
    assert not metrics.loss.requires_grad
    if "adversarial" in metrics.kinds:
        assert 0 < metrics.perturbation <= case.largest
    else:
        assert metrics.perturbation is None


def test_metrics_are_those_of_the_model() -> None:
    model = tiny_net().train()
    reference = copy.deepcopy(model)
    metrics = run(Vanilla(), model)
    logits = reference(tiny_images())
    assert torch.equal(metrics.loss, F.cross_entropy(logits, tiny_labels()))
    correct = (logits.argmax(1) == tiny_labels()).float().mean()
    assert torch.equal(metrics.kinds["clean"].accuracy, correct)


def test_accuracy_pairs_each_image_with_its_own_label() -> None:
    logits = torch.eye(NUM_CLASSES)[[0, 1, 2, 3]]
    labels = torch.tensor([0, 1, 2, 0])
    for given in (labels, F.one_hot(labels, NUM_CLASSES) * 0.6 + 0.4 / NUM_CLASSES):
        assert Classification().metrics(logits, given)["accuracy"] == 0.75


def test_perturbation_is_a_size_not_a_sum_of_signs() -> None:
    signs = torch.tensor([1.0, -1.0]).view(2, 1, 1, 1)
    size = perturbation_size(torch.full((2, 1, 2, 2), 0.5), 0.5 + 0.1 * signs.expand(2, 1, 2, 2))
    torch.testing.assert_close(size, torch.tensor(0.1))


# --- calling


def needed_beside_images(method: Method) -> str:
    """What else of a batch a method cannot do without."""
    return "view" if method.views else "" if method.takes_mixtures else "indices"


@every_method
def test_both_calling_conventions_agree(case: Case) -> None:
    images, labels, batch = tiny_images(), tiny_labels(), batch_for(case.method)
    found = []
    calls = [
        lambda fresh, model, context: fresh.forward_backward(model, batch, context),
        lambda fresh, model, context: fresh.forward_backward(model, batch, context=context),
        lambda fresh, model, context: fresh.forward_backward(model, images, labels, context),
    ]
    # images and labels alone do not tell which images they are, and have no views
    if needed := needed_beside_images(case.method):
        with pytest.raises(ValueError, match=f"the batch has no {needed}"):
            calls.pop()(prepared(case.method), net_for(case.method), Context())
    for call in calls:
        model = net_for(case.method)
        call(prepared(case.method), model, Context(progress=case.progress, generator=seeded()))
        found.append(gradients(model))
    assert all(same_tensors(found[0], others) for others in found[1:])


@every_method
def test_context_may_be_left_out(case: Case) -> None:
    batch = batch_for(case.method)
    assert prepared(case.method).forward_backward(net_for(case.method), batch).loss.isfinite()
    if not needed_beside_images(case.method):
        metrics = prepared(case.method).forward_backward(
            net_for(case.method), tiny_images(), tiny_labels()
        )
        assert metrics.loss.isfinite()


def test_wrong_calls_say_what_is_missing() -> None:
    with pytest.raises(TypeError, match=r"labels are missing: call \(model, images, labels\)"):
        Vanilla().forward_backward(tiny_net(), tiny_images())
    batch = Batch(images=tiny_images(), labels=tiny_labels())
    with pytest.raises(TypeError, match=r"a Batch holds its labels: call \(model, batch, context"):
        Vanilla().forward_backward(tiny_net(), batch, tiny_labels())


@every_method
def test_soft_labels(case: Case) -> None:
    hard, one_hot, mixed = net_for(case.method), net_for(case.method), net_for(case.method)
    labels = F.one_hot(tiny_labels(), NUM_CLASSES).float()
    expected = run(case, hard)
    metrics = run(case, one_hot, labels=labels)
    for name, gradient in gradients(one_hot).items():
        torch.testing.assert_close(gradient, hard.get_parameter(name).grad)
    for kind, found in metrics.kinds.items():
        assert torch.equal(found.accuracy, expected.kinds[kind].accuracy)
    run(case, mixed, labels=0.7 * labels + 0.3 * labels.roll(1, 0))
    assert not same_tensors(gradients(mixed), gradients(hard))


@every_method
def test_methods_are_values(case: Case) -> None:
    method = case.method
    assert dataclasses.replace(method) == method
    assert repr(method).startswith(type(method).__name__)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.attack = None  # type: ignore[attr-defined]


# --- what is refused


def test_unknown_form() -> None:
    with pytest.raises(
        ValueError, match=r"form='both': choose \"auto\", .*\"joint\" or \"summed\""
    ):
        AdvProp(attack=ATTACK, form="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"form='joint': choose \"auto\", .* or \"summed\""):
        Pyramid(attack=ATTACK, form="joint")  # type: ignore[arg-type]


@pytest.mark.parametrize("weights", [(-1.0, 1.0), (1.0, -0.5)])
def test_negative_weights(weights: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match=r"loss weights .*at least 0 each"):
        AdvProp(attack=ATTACK, clean_weight=weights[0], adversarial_weight=weights[1])
    with pytest.raises(ValueError, match=r"loss weights .*at least 0 each"):
        Pyramid(attack=ATTACK, clean_weight=weights[0], adversarial_weight=weights[1])


def test_unnormalised_images_are_refused_before_anything_changes() -> None:
    model = tiny_branched_net().train()
    with pytest.raises(ValueError, match=r"standardized\(model\)"):
        run(AdvProp(attack=ATTACK), model, images=2 * tiny_images() - 1)
    assert active_branch(model) == "clean"
    assert model.training
