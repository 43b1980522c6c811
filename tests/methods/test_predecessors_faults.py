"""One test for each fault of earlier implementations that could bite here.

T14 (SyncBatchNorm) and T15 (fused activations) are tested over all layers in tests/auxiliary, T30
(validation images kept out of tests) in tests/data, T33 (an export's mean, std and class names) in
tests/exports/test_export.py, T11 and T12 under DistributedDataParallel in test_distributed.py, T9
(update speeds) and what is T10's (label leak) of `Fast` in test_fast.py and test_distributed.py.
T18's matched masks have test_matched_masks.py. T24 to T26 and T32 belong to things that are not
here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers import convert_sync_batchnorm
from timm.utils import ModelEmaV3
from tiny import (
    NUM_CLASSES,
    active_branch,
    branches_of,
    gradients,
    randomise,
    same_tensors,
    seeded,
    still,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_net,
)
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.attacks.objectives import given, random_other_class, untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import L2, Linf
from advprop.auxiliary.branches import attack_mode, use_branch
from advprop.auxiliary.gradients import branch_parameters
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms
from advprop.comparisons.plan import plan_jobs
from advprop.methods.advprop import AdvProp
from advprop.methods.mixed import Mixed
from advprop.methods.step import Context, StepMetrics
from advprop.methods.vanilla import Vanilla
from advprop.models.standardize import standardized
from advprop.randomness import ImageStreams, Randomness
from advprop.recipes.images import from_scratch
from advprop.suites import through_branch
from advprop.training.optim import build_optimizer, build_schedule
from advprop.training.settings import TrainingSettings

ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=2, step_size=6 / 255)
forms = pytest.mark.parametrize("form", ["separate", "joint", "summed"])


class Recording:
    """An attack that remembers what it was given and what it gave."""

    def __init__(self, attack: Callable[..., Tensor] = ATTACK) -> None:
        self.attack = attack
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []

    passes_per_image = ATTACK.passes_per_image

    def __call__(self, logits_fn: Any, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
        adversarial = self.attack(logits_fn, images, labels, **options)
        self.calls.append((images, labels, adversarial))
        return adversarial


def step(method: Any, model: nn.Module, *, generator: Randomness = None) -> StepMetrics:
    """One step on the usual images."""
    context = Context(generator=generator or seeded())
    return method.forward_backward(model, tiny_images(), tiny_labels(), context)


def generated(model: nn.Module, form: str = "separate", attack: Any = ATTACK) -> Tensor:
    """The adversarial images that AdvProp learns from, for a copy of `model`."""
    recording = Recording(attack)
    step(AdvProp(attack=recording, form=form), copy.deepcopy(model))
    return recording.calls[0][2]


# --- T1, T2: range


@pytest.mark.parametrize("ball", [Linf(4 / 255), L2(0.5)], ids=str)
def test_t1_epsilon_means_the_same_whatever_mean_and_std(ball: Linf | L2) -> None:
    model = standardized(tiny_net().eval(), mean=[0.5, 0.4, 0.1], std=[0.5, 0.1, 0.02])
    attack = PGD(threat_model=ball, num_steps=4, step_size=ball.epsilon / 2, targets=untargeted)
    images = tiny_images(margin=0.2)
    change = attack(model, images, tiny_labels(), generator=seeded()) - images
    if isinstance(ball, Linf):
        sizes = change.abs().amax(dim=(0, 2, 3))
        torch.testing.assert_close(sizes, torch.full((3,), ball.epsilon), rtol=1e-5, atol=1e-7)
    else:
        assert (change.flatten(1).norm(dim=1) <= ball.epsilon + 1e-6).all()
        assert change.flatten(1).norm(dim=1).mean() > 0.95 * ball.epsilon


def test_t1_standardised_images_are_refused() -> None:
    standard = (tiny_images() - 0.5) / 0.2
    with pytest.raises(ValueError, match=r"attacks work in \[0, 1\]"):
        ATTACK(tiny_net().eval(), standard, tiny_labels())


def test_t2_the_random_start_is_clipped_before_the_first_forward_pass() -> None:
    model, seen = tiny_net().eval(), []
    images = tiny_images().round()  # every value at the edge of the box

    def spy(points: Tensor) -> Tensor:
        seen.append(points.detach().clone())
        return model(points)

    ATTACK(spy, images, tiny_labels(), generator=seeded())
    assert not torch.equal(seen[0], images)
    assert seen[0].min() >= 0
    assert seen[0].max() <= 1


# --- T3, T4, T5: branches and modes


@forms
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_t3_the_attack_goes_through_the_auxiliary_branch(form: str, training: bool) -> None:
    model = tiny_branched_net().train() if training else still(tiny_branched_net())
    before = generated(model, form)
    for branch, is_attacked in (("adversarial", True), ("clean", False)):
        moved = copy.deepcopy(model)
        for layer in branches_of(moved, branch):
            randomise(layer)
        assert torch.equal(generated(moved, form), before) != is_attacked


@forms
def test_t3_its_parameters_alone_steer_the_attack(form: str) -> None:
    # statistics left as they are: a layer that ignores its branch in eval mode would not notice
    model = tiny_branched_net().train()
    before = generated(model, form)
    with torch.no_grad():
        for parameter in branch_parameters(model)["adversarial"]:
            parameter.add_(0.5 * torch.randn_like(parameter))
    assert not torch.equal(generated(model, form), before)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("branch", ["clean", "adversarial"])
def test_t4_branch_and_mode_are_independent(branch: str, training: bool) -> None:
    model = tiny_branched_net().train(training)
    for layer in branches_of(model, "adversarial"):
        randomise(layer)
    alone = remove_auxiliary_norms(copy.deepcopy(model), keep=branch)
    with use_branch(model, branch):
        assert all(layer.training == training for layer in model.modules())
        assert torch.equal(model(tiny_images()), alone(tiny_images()))


def test_t4_state_is_restored_after_an_exception() -> None:
    model = tiny_branched_net().train()
    with pytest.raises(KeyError), use_branch(model, "adversarial"), attack_mode(model):
        raise KeyError
    assert active_branch(model) == "clean"
    assert all(layer.training for layer in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@forms
def test_t5_the_attack_updates_no_statistics(form: str) -> None:
    model = tiny_branched_net().train()
    reference = copy.deepcopy(model)
    recording = Recording()
    step(AdvProp(attack=recording, form=form), model)
    for branch, images in (("clean", tiny_images()), ("adversarial", recording.calls[0][2])):
        with use_branch(reference, branch):
            reference(images)
        for ours, theirs in zip(
            branches_of(model, branch), branches_of(reference, branch), strict=True
        ):
            assert ours.num_batches_tracked == 1
            torch.testing.assert_close(ours.running_mean, theirs.running_mean)
            torch.testing.assert_close(ours.running_var, theirs.running_var)


# --- T6, T7: targets and starts


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_t6_the_target_is_never_the_true_class(classes: int) -> None:
    labels = torch.arange(5000) % classes
    targets, sign = random_other_class(labels, torch.zeros(5000, classes), seeded())
    assert (targets != labels).all()
    assert targets.min() >= 0
    assert targets.max() < classes
    assert sign == -1


def test_t6_advprop_descends_towards_the_target() -> None:
    model, images, labels = tiny_net().eval(), tiny_images(64), tiny_labels(64)
    targets, _ = random_other_class(labels, model(images), seeded())
    attack = PGD(threat_model=Linf(0.05), num_steps=3, step_size=0.02, targets=given)
    adversarial = attack(model, images, targets, generator=seeded())
    before = F.cross_entropy(model(images), targets)
    assert F.cross_entropy(model(adversarial), targets) < before


def test_t6_mixup_labels_have_targets_too() -> None:
    labels = F.one_hot(tiny_labels(), NUM_CLASSES).float()
    mixed = 0.6 * labels + 0.4 * labels.roll(1, 0)
    targets, _ = random_other_class(mixed, torch.zeros(8, NUM_CLASSES), seeded())
    assert (mixed.gather(1, targets[:, None]) == 0).all()


def test_t7_the_start_is_drawn_for_each_image_with_its_probability() -> None:
    images = torch.full((4000, 1, 2, 2), 0.5)
    attack = PGD(threat_model=Linf(0.1), num_steps=0, step_size=0.0, random_start_probability=0.8)
    noisy = attack(nn.Identity(), images, tiny_labels(4000), generator=seeded())
    share = (noisy != images).flatten(1).any(dim=1).float().mean()
    assert abs(share - 0.8) < 4 * (0.8 * 0.2 / 4000) ** 0.5


# --- T8, T10, T11: losses and gradients


@pytest.mark.parametrize("kind", ["separate", "joint", "mixed"])
def test_t8_the_two_mean_losses_are_summed(kind: str) -> None:
    nothing = PGD(threat_model=Linf(0.0), num_steps=0, step_size=0.0)
    method = Mixed(attack=nothing) if kind == "mixed" else AdvProp(attack=nothing, form=kind)
    vanilla, model = tiny_net().train(), tiny_branched_net().train()
    once, both = step(Vanilla(), vanilla), step(method, model)
    torch.testing.assert_close(both.loss, 2 * once.loss)
    for name in ("0.weight", "9.weight", "9.bias"):
        expected = 2 * vanilla.get_parameter(name).grad
        torch.testing.assert_close(model.get_parameter(name).grad, expected)


@forms
def test_t10_an_image_is_attacked_alike_in_any_company(form: str) -> None:
    """Batch statistics would write the labels of a batch into its perturbations."""
    model = tiny_branched_net().train().double()
    found = []
    for chosen in (range(8), [0, 1, 2, 3]):
        recording = Recording()
        context = Context(generator=ImageStreams.for_batch(0, 0, list(chosen)))
        AdvProp(attack=recording, form=form).forward_backward(
            copy.deepcopy(model),
            tiny_images().double()[list(chosen)],
            tiny_labels()[list(chosen)],
            context,
        )
        found.append(recording.calls[0][2])
    torch.testing.assert_close(found[0][:4], found[1], rtol=0, atol=1e-12)


def test_t10_the_default_target_is_not_the_true_label() -> None:
    assert ATTACK.targets is random_other_class


@forms
def test_t11_the_attack_adds_nothing_to_gradients(form: str) -> None:
    adversarial = generated(tiny_branched_net().train(), form)
    attacked, given_images = tiny_branched_net().train(), tiny_branched_net().train()
    step(AdvProp(attack=ATTACK, form=form), attacked)
    step(AdvProp(attack=Recording(lambda *_, **__: adversarial), form=form), given_images)
    assert same_tensors(gradients(attacked), gradients(given_images))


# --- T13, T14, T16, T17, T19: around the method


def test_t13_joint_batches_are_not_scattered() -> None:
    model = nn.DataParallel(tiny_branched_net().train())
    with pytest.raises(ValueError, match=r'form="joint" under DataParallel.*form="separate"'):
        step(AdvProp(attack=ATTACK, form="joint"), model)
    plain = tiny_branched_net().train()
    step(AdvProp(attack=ATTACK), plain)
    step(AdvProp(attack=ATTACK), model)
    assert same_tensors(gradients(model.module), gradients(plain))


def test_t14_sync_batchnorm_reaches_every_branch() -> None:
    model = convert_sync_batchnorm(tiny_branched_net())
    for branch in ("clean", "adversarial"):
        layers = branches_of(model, branch)
        assert len(layers) == 2
        assert all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)
    with use_branch(model, "adversarial"):
        assert torch.equal(model.eval()(tiny_images()), tiny_net().eval()(tiny_images()))


def settings(**changes: Any) -> TrainingSettings:
    return TrainingSettings(num_epochs=4, batch_size=8, weight_decay=0.1, **changes)


def test_t16_all_branches_are_optimised_and_none_is_decayed() -> None:
    model = tiny_branched_net()
    decay = {
        parameter: group["weight_decay"]
        for group in build_optimizer(model, settings()).param_groups
        for parameter in group["params"]
    }
    assert set(decay) == set(model.parameters())
    owned = branch_parameters(model)
    for branch in ("clean", "adversarial"):
        assert [decay[parameter] for parameter in owned[branch]] == [0.0] * 4
    assert {decay[parameter] for parameter in owned["shared"]} == {0.0, 0.1}


def test_t17_an_average_has_averaged_statistics_and_a_route_of_its_own() -> None:
    model = tiny_branched_net().train()
    ema = ModelEmaV3(model, decay=0.75)
    start = copy.deepcopy(model.state_dict())
    step(AdvProp(attack=ATTACK), model)
    ema.update(model)
    name = "1.branches.adversarial.running_mean"
    expected = 0.75 * start[name] + 0.25 * model.state_dict()[name]
    torch.testing.assert_close(ema.module.state_dict()[name], expected)
    with use_branch(model, "adversarial"):
        assert active_branch(ema.module) == "clean"


def test_t18_the_attack_meets_no_dropout_and_training_does() -> None:
    model = tiny_branched_net(dropout=0.5).train()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        recording, trained = Recording(), copy.deepcopy(model)
        step(AdvProp(attack=recording), trained)
        found.append((recording.calls[0][2], gradients(trained)))
    assert torch.equal(found[0][0], found[1][0])
    assert not same_tensors(found[0][1], found[1][1])


def test_t19_after_training_the_plain_architecture_is_back() -> None:
    model = tiny_branched_net().train()
    step(AdvProp(attack=ATTACK), model)
    expected = model.eval()(tiny_images())
    plain = tiny_net(seed=1)
    plain.load_state_dict(remove_auxiliary_norms(model).state_dict())
    assert torch.equal(plain.eval()(tiny_images()), expected)


@forms
def test_t20_what_is_attacked_is_what_the_clean_branch_learns_from(form: str) -> None:
    recording = Recording()
    model = tiny_branched_net().train()
    images = tiny_images()
    mixed = torch.softmax(torch.randn(8, NUM_CLASSES, generator=seeded()), dim=1)
    AdvProp(attack=recording, form=form).forward_backward(model, images, mixed)
    ((attacked, labels, _),) = recording.calls
    assert attacked is images
    assert labels is mixed


# --- T21, T22: precision


def test_t21_perturbations_are_not_rounded_to_bytes() -> None:
    images = (255 * tiny_images(margin=0.1)).round() / 255
    attack = PGD(
        threat_model=Linf(1 / 255),
        num_steps=1,
        step_size=0.4 / 255,
        random_start_probability=0.0,
    )
    levels = 255 * attack(tiny_net().eval(), images, tiny_labels(), generator=seeded())
    distance = (levels - levels.round()).abs()
    torch.testing.assert_close(distance, torch.full_like(distance, 0.4), rtol=0, atol=1e-3)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(1.0)], ids=str)
def test_t22_gradients_too_small_for_float16_still_steer(ball: Linf | L2) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 16, bias=False), nn.Linear(16, NUM_CLASSES))
    with torch.no_grad():
        net[1].weight.normal_(std=3e-5)
        net[2].weight.normal_(std=3e-5)
    images, labels = tiny_images(margin=0.2), tiny_labels()

    def image_gradient(scale: float) -> Tensor:
        point = images.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = scale * F.cross_entropy(net(point).float(), labels, reduction="sum")
        return torch.autograd.grad(loss, point)[0]

    assert image_gradient(1.0).count_nonzero() == 0  # what a sign would make nothing of
    attack = PGD(
        threat_model=ball,
        num_steps=1,
        step_size=ball.epsilon,
        random_start_probability=0.0,
        targets=untargeted,
    )
    full = attack(net, images, labels) - images
    with torch.autocast("cpu", dtype=torch.float16):
        half = attack(net, images, labels) - images
    assert half.abs().mean().item() == pytest.approx(full.abs().mean().item(), rel=0.1)
    assert F.cosine_similarity(half.flatten(1), full.flatten(1)).min() > 0.8


# --- T23, T27, T28, T29, T31: comparisons and settings


def test_t23_vanilla_of_equal_cost_stands_beside() -> None:
    base = from_scratch()
    plan = plan_jobs(base, Path("runs"), ["vanilla", "advprop"], 1, [])
    jobs = {job.method: job for job in plan}
    dearest = jobs["advprop"].config.method.build().passes_per_image
    assert dearest == 3
    equal, vanilla = jobs["vanilla_equal_cost"].config, jobs["vanilla"].config
    assert equal.method.kind == "vanilla"
    assert equal.training.num_epochs == vanilla.training.num_epochs * dearest


def test_t27_attacked_and_evaluated_branch_are_chosen_apart() -> None:
    model = tiny_branched_net().eval()
    for layer in branches_of(model, "adversarial"):
        randomise(layer)
    found = {
        branch: ATTACK(
            through_branch(model, branch), tiny_images(), tiny_labels(), generator=seeded()
        )
        for branch in ("clean", "adversarial")
    }
    assert not torch.equal(found["clean"], found["adversarial"])
    for branch, adversarial in found.items():
        alone = remove_auxiliary_norms(copy.deepcopy(model), keep=branch)
        assert torch.equal(
            adversarial, ATTACK(alone, tiny_images(), tiny_labels(), generator=seeded())
        )
    assert active_branch(model) == "clean"


def test_t29_training_from_scratch_begins_with_a_weak_attacker() -> None:
    attack = from_scratch().method.attack
    assert (attack.num_steps, attack.threat_model.epsilon, attack.step_size) == (
        1,
        1 / 255,
        1 / 255,
    )


def test_t31_the_learning_rate_depends_on_the_step_alone() -> None:
    def rate(steps: list[int]) -> float:
        model = add_auxiliary_norms(tiny_net())
        optimizer = build_optimizer(model, settings(warmup_epochs=1.0))
        schedule = build_schedule(optimizer, settings(warmup_epochs=1.0), steps_per_epoch=5)
        for number in steps:
            schedule.step_update(number)
        return optimizer.param_groups[0]["lr"]

    rates = {number: rate([number]) for number in range(20)}
    assert len(set(rates.values())) > 15
    for number in (3, 11, 19):
        assert rate([*range(number + 1)]) == rates[number]
        assert rate([number, number]) == rates[number]
