"""Fast AdvProp against the authors' algorithm written out, and what only it promises."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from case import Case
from fast_by_hand import ByHand
from tiny import (
    NUM_CLASSES,
    active_branch,
    branches_of,
    gradients,
    randomise,
    same_tensors,
    seeded,
    tiny_branched_net,
    tiny_images,
    tiny_labels,
    tiny_net,
)
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.attacks.fgsm import fgsm
from advprop.attacks.objectives import untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import L2, Linf
from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.gradients import branch_parameters
from advprop.comparisons.plan import plan_jobs
from advprop.config.attacks import OneStepConfig, ThreatModelConfig, TrainingAttackConfig
from advprop.config.methods import FastConfig, method_config
from advprop.config.overrides import apply_overrides
from advprop.methods.fast import Fast
from advprop.methods.step import Context, StepMetrics
from advprop.methods.vanilla import Vanilla
from advprop.randomness import ImageStreams, Randomness
from advprop.recipes.builtin import mnist5k
from advprop.training.alarms import alarms
from advprop.training.state import EpochTotals

EPSILON = 8 / 255
FAST = Fast(threat_model=Linf(EPSILON), attacked_fraction=0.25, form="separate")


def tried(*, largest: float = EPSILON, **settings: Any) -> Case:
    """Half of the images are attacked, and their two passes together count them once."""
    method = dataclasses.replace(FAST, **{"form": "auto", "attacked_fraction": 0.5, **settings})
    return Case(
        method=method,
        weights={
            "clean": 0.5,
            "noise": 0.5 * (1 - method.beta),
            "adversarial": 0.5 * method.beta,
        },
        counts={"clean": 4, "noise": 4, "adversarial": 4},
        largest=largest,
        statistics={"adversarial": 2},  # at the random start, and attacked
        exchanges=True,
        forwards=2,
    )


CASES = {
    "fast": tried(),
    # the noise pass trains too, but its gradients travel with the next
    "fast separate": dataclasses.replace(
        tried(form="separate"), unused=True, forwards=3, backwards=2, distributed=True
    ),
    "fast summed": tried(form="summed"),
    "fast l2": tried(threat_model=L2(1.0), largest=0.1),
    "fast not synchronised": tried(beta=0.25, synchronise=False),
}
forms = pytest.mark.parametrize("form", ["separate", "joint"])


def moved_net() -> nn.Module:
    """A net whose branches no longer agree."""
    model = tiny_branched_net().train()
    torch.manual_seed(5)
    for layer in branches_of(model, "adversarial"):
        randomise(layer)
    return model


def step(
    method: Fast,
    model: nn.Module,
    *,
    images: Tensor | None = None,
    labels: Tensor | None = None,
    generator: Randomness = None,
    **context: Any,
) -> StepMetrics:
    images = tiny_images() if images is None else images
    labels = tiny_labels() if labels is None else labels
    made = Context(generator=generator or seeded(), **context)
    return method.forward_backward(model, images, labels, made)


def passes(method: Fast, model: nn.Module, **options: Any) -> list[tuple[Any, Tensor]]:
    """Branch and images of each forward pass of one step."""
    seen: list[tuple[Any, Tensor]] = []
    handle = model.register_forward_pre_hook(
        lambda _, inputs: seen.append((active_branch(model), inputs[0].detach().clone()))
    )
    step(method, model, **options)
    handle.remove()
    return seen


# --- against the algorithm


@forms
@pytest.mark.parametrize("beta", [0.5, 0.2, 0.0])
@pytest.mark.parametrize("synchronise", [True, False])
def test_a_step_is_that_of_the_authors_code(form: str, beta: float, synchronise: bool) -> None:
    hand = ByHand(adversarial_seed=5).double()
    unit = torch.rand(2, 3, 8, 8, generator=seeded()).double()
    adversarial = hand.step(tiny_images().double(), tiny_labels(), unit, epsilon=EPSILON, beta=beta)
    model = moved_net().double()
    method = dataclasses.replace(FAST, beta=beta, synchronise=synchronise, form=form)
    metrics = step(method, model, images=tiny_images().double())
    assert sorted(set(hand.counts.values())) == [2, 6, 8]
    expected = hand.gradients(every=None if synchronise else 8)
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)
    for branch, net in hand.nets.items():
        norms = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
        for ours, theirs in zip(branches_of(model, branch), norms, strict=True):
            for name, buffer in theirs.named_buffers():
                torch.testing.assert_close(ours.get_buffer(name), buffer)
    for kind, loss in hand.losses.items():
        torch.testing.assert_close(metrics.kinds[kind].loss, loss)
    size = (adversarial - tiny_images()[6:]).abs().mean()
    torch.testing.assert_close(metrics.perturbation.double(), size, rtol=1e-5, atol=0)


@pytest.mark.parametrize(("synchronise", "speeds"), [(True, (1, 1, 1)), (False, (1, 0.75, 0.25))])
def test_t9_update_speeds(synchronise: bool, speeds: tuple[float, ...]) -> None:
    """Mei et al. 2022: shared, clean, adversarial as 1 : 1 : 1 instead of 1 : (1 - p) : p."""
    images, labels = tiny_images(1).expand(8, -1, -1, -1), tiny_labels(1).expand(8)
    vanilla = tiny_net().train().double()
    Vanilla().forward_backward(vanilla, images.double(), labels)
    model = tiny_branched_net().train().double()
    method = dataclasses.replace(FAST, threat_model=Linf(0.0), synchronise=synchronise)
    step(method, model, images=images.double(), labels=labels)
    # eight times one image, unchanged: each pass has vanilla's mean gradient
    norms = [parameter.grad for layer in (1, 4) for parameter in vanilla[layer].parameters()]
    others = [parameter.grad for layer in (0, 3, 9) for parameter in vanilla[layer].parameters()]
    for (_, owned), speed, expected in zip(
        branch_parameters(model).items(), speeds, (others, norms, norms), strict=True
    ):
        for parameter, gradient in zip(owned, expected, strict=True):
            torch.testing.assert_close(parameter.grad, speed * gradient)


@pytest.mark.parametrize("ball", [Linf(EPSILON), L2(1.0)], ids=str)
@pytest.mark.parametrize("step_size", [None, 0.01])
def test_the_attack_is_one_step_of_pgd_on_batch_statistics(
    ball: Linf | L2, step_size: float | None
) -> None:
    model = moved_net().double()
    whole = ball.epsilon if step_size is None else step_size
    pgd = PGD(threat_model=ball, num_steps=1, step_size=whole, targets=untargeted)
    if step_size is None:
        assert pgd == fgsm(ball, random_start_probability=1.0)
    reference = copy.deepcopy(model)
    with use_branch(reference, "adversarial"):
        images = tiny_images().double()[6:]
        expected = pgd(reference, images, tiny_labels()[6:], generator=seeded())
    method = dataclasses.replace(FAST, threat_model=ball, step_size=step_size)
    *_, (_, found) = passes(method, model, images=tiny_images().double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_each_image_is_of_one_kind_and_goes_through_its_branch() -> None:
    images = tiny_images()
    noise, clean, adversarial = passes(FAST, moved_net())
    assert [branch for branch, _ in (noise, clean, adversarial)] == [
        "adversarial",
        "clean",
        "adversarial",
    ]
    assert torch.equal(clean[1], images[:6])
    for _, found in (noise, adversarial):
        change = found - images[6:]
        assert 0 < change.abs().max() <= EPSILON + 1e-7
        assert found.min() >= 0
        assert found.max() <= 1
    assert (adversarial[1] - images[6:]).abs().mean() > (noise[1] - images[6:]).abs().mean()


def test_the_joint_pass_has_clean_images_first() -> None:
    method = dataclasses.replace(FAST, form="joint")
    noise, both = passes(method, moved_net())
    assert (noise[0], both[0]) == ("adversarial", ("clean", "adversarial"))
    assert torch.equal(both[1][:6], tiny_images()[:6])
    *_, adversarial = passes(FAST, moved_net())
    assert torch.equal(both[1][6:], adversarial[1])


# --- randomness, precision, layout


def test_an_image_starts_alike_wherever_it_is() -> None:
    images, labels = tiny_images(12), tiny_labels(12)
    starts = {}
    for chosen in ([*range(8)], [8, 9, 10, 11, 0, 1, 7, 6]):
        streams = ImageStreams.for_batch(0, 0, chosen)
        (_, noise), *_ = passes(
            FAST, moved_net(), images=images[chosen], labels=labels[chosen], generator=streams
        )
        for index, start in zip(chosen[6:], noise, strict=True):
            starts.setdefault(index, []).append(start)
    assert starts.keys() == {6, 7}
    for first, second in starts.values():
        assert torch.equal(first, second)
    assert not torch.equal(*[first - images[index] for index, (first, _) in starts.items()])


@pytest.mark.parametrize("ball", [Linf(EPSILON), L2(1.0)], ids=str)
@forms
def test_the_loss_scale_of_mixed_precision_changes_nothing(form: str, ball: Linf | L2) -> None:
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    method = dataclasses.replace(FAST, threat_model=ball, form=form)
    plain, scaled = moved_net(), moved_net()
    step(method, plain)
    step(method, scaled, backward=accelerator.backward)
    for name, gradient in gradients(scaled).items():
        # a power of two rounds nothing
        assert torch.equal(gradient / 2**16, plain.get_parameter(name).grad)


@pytest.mark.parametrize("ball", [Linf(EPSILON), L2(1.0)], ids=str)
def test_start_and_step_are_taken_in_full_precision_under_autocast(ball: Linf | L2) -> None:
    method = dataclasses.replace(FAST, threat_model=ball)
    full = passes(method, moved_net())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = passes(method, moved_net())
    assert all(images.dtype == torch.float32 for _, images in half)
    assert torch.equal(half[0][1], full[0][1])
    similar = F.cosine_similarity(
        *((found[2][1] - tiny_images()[6:]).flatten(1) for found in (half, full))
    )
    assert similar.min() > 0.9


@forms
def test_channels_last_is_kept(form: str) -> None:
    last = {"memory_format": torch.channels_last}
    method = dataclasses.replace(FAST, form=form)
    seen = passes(method, moved_net().to(**last), images=tiny_images().contiguous(**last))
    assert all(images.is_contiguous(**last) for _, images in seen)


def test_soft_labels_travel_with_their_images() -> None:
    model, seen = moved_net(), []

    def loss_fn(logits: Tensor, labels: Tensor) -> Tensor:
        seen.append(labels)
        return F.cross_entropy(logits, labels)

    soft = torch.softmax(torch.randn(8, NUM_CLASSES, generator=seeded(3)), dim=1)
    step(FAST, model, labels=soft, loss_fn=loss_fn)
    assert torch.equal(seen[0], soft[6:])
    assert torch.equal(torch.cat([seen[1], seen[2]]), soft)


def test_a_compiled_model_has_the_same_gradients() -> None:
    method = dataclasses.replace(FAST, form="joint")
    plain, compiled = moved_net().double(), moved_net().double()
    compiled.compile(backend="aot_eager")
    for model in (plain, compiled):
        step(method, model, images=tiny_images().double())
    for name, gradient in gradients(compiled).items():
        torch.testing.assert_close(gradient, plain.get_parameter(name).grad)


# --- metrics


def test_kinds_and_shares_reach_the_alarm() -> None:
    totals = EpochTotals()
    for number in range(3):
        totals.add(step(FAST, moved_net(), generator=seeded(number)))
    means = totals.means()
    shares = {kind: means[kind]["share"] for kind in ("clean", "noise", "adversarial")}
    assert shares == {"clean": 0.75, "noise": 0.25, "adversarial": 0.25}
    assert means["perturbation"] > 0
    means["clean"]["accuracy"], means["adversarial"]["accuracy"] = 0.5, 0.6
    # four deviations of a difference between 3,000 and 1,000 images, and between 600 and 200
    assert 4 * (0.25 / 3000 + 0.25 / 1000) ** 0.5 < 0.1 < 4 * (0.25 / 600 + 0.25 / 200) ** 0.5
    assert "the labels leak" in alarms(means, num_images=4000)[0]
    assert not alarms(means, num_images=800)


# --- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attacked_fraction": -0.1}, r"attacked_fraction -0.1: .*at least 0 and below 1"),
        ({"attacked_fraction": 1.0}, r"attacked_fraction 1.0: .*below 1"),
        ({"beta": -0.1}, r"beta -0.1: .*at least 0 and below 1"),
        ({"beta": 1.0}, r"beta 1.0: .*the attack's step comes from the noise pass"),
        ({"step_size": -1.0}, r"step_size -1.0: give a number of at least 0"),
        ({"form": "both"}, r"form='both': choose"),
    ],
)
def test_impossible_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(FAST, **changes)


@pytest.mark.parametrize(
    ("fraction", "size", "counts"),
    [(0.2, 2, (0, 2)), (0.2, 6, (1, 5)), (0.25, 5, (1, 4)), (0.9, 8, (7, 1)), (0.9, 4, (4, 0))],
)
def test_a_batch_with_too_few_images_of_a_kind(
    fraction: float, size: int, counts: tuple[int, int]
) -> None:
    model = moved_net()
    method = dataclasses.replace(FAST, attacked_fraction=fraction)
    message = (
        rf"attacked_fraction {fraction} of {size} images makes {counts[0]} adversarial and "
        rf"{counts[1]} clean, at least 2 of each are needed: take larger batches"
    )
    with pytest.raises(ValueError, match=message):
        step(method, model, images=tiny_images(size), labels=tiny_labels(size))
    assert all(gradient is None for gradient in gradients(model).values())


def test_images_outside_the_box_are_refused_before_anything_changes() -> None:
    model = moved_net()
    with pytest.raises(ValueError, match=r"standardized\(model\)"):
        step(FAST, model, images=2 * tiny_images() - 1)
    assert all(gradient is None for gradient in gradients(model).values())
    assert all(not parameter._backward_hooks for parameter in model.parameters())
    assert active_branch(model) == "clean"


def test_a_joint_pass_under_data_parallel_is_refused_before_anything_changes() -> None:
    model = nn.DataParallel(moved_net())
    with pytest.raises(ValueError, match=r'form="joint" under DataParallel'):
        step(dataclasses.replace(FAST, form="joint"), model)
    assert all(gradient is None for gradient in gradients(model).values())
    plain = moved_net()
    step(dataclasses.replace(FAST, form="auto"), model)
    step(FAST, plain)
    assert same_tensors(gradients(model.module), gradients(plain))


def test_no_hook_stays_on_a_parameter() -> None:
    model = moved_net()
    step(FAST, model)
    assert all(not parameter._backward_hooks for parameter in model.parameters())


# --- configuration


def test_a_recipes_attack_becomes_one_step_away_from_the_labels() -> None:
    config = mnist5k().with_method("fast")
    assert config.method == FastConfig(
        attack=OneStepConfig(threat_model=ThreatModelConfig(epsilon=0.2))
    )
    built = config.method.build()
    assert built == Fast(threat_model=Linf(0.2))
    assert built.attack == PGD(
        threat_model=Linf(0.2), num_steps=1, step_size=0.2, targets=untargeted
    )
    back = config.with_method("advprop").method
    assert back.attack == TrainingAttackConfig(
        threat_model=ThreatModelConfig(epsilon=0.2),
        num_steps=1,
        step_size=0.2,
        targets="untargeted",
    )
    l2 = OneStepConfig(threat_model=ThreatModelConfig(kind="l2", epsilon=2.0), step_size=0.5)
    assert l2.as_pgd().build() == FastConfig(attack=l2).build().attack
    assert method_config("fast").build().threat_model == Linf(4 / 255)


def test_settings_of_a_run() -> None:
    config = mnist5k().with_method("fast")
    changed = apply_overrides(
        config,
        [
            "method.attack.threat_model.epsilon=2/255",
            "method.attack.step_size=1/255",
            "method.attacked_fraction=0.5",
            "method.beta=0.25",
            "method.synchronise=false",
            "method.form=joint",
        ],
    )
    assert changed.method.build() == Fast(
        threat_model=Linf(2 / 255),
        step_size=1 / 255,
        attacked_fraction=0.5,
        beta=0.25,
        synchronise=False,
        form="joint",
    )
    with pytest.raises(ValueError, match=r"beta 1.0: give one of at least 0 and below 1"):
        apply_overrides(config, ["method.beta=1"])
    with pytest.raises(ValueError, match=r'"method.attack.num_steps" is no setting'):
        apply_overrides(config, ["method.attack.num_steps=5"])


def test_a_comparison_may_set_what_fast_has_not() -> None:
    overrides = ["method.attack.num_steps=5", "method.attack.threat_model.epsilon=0.1"]
    jobs = plan_jobs(mnist5k(), Path("runs"), ["advprop", "fast"], 1, overrides)
    methods = {job.method: job.config.method for job in jobs}
    assert methods["advprop"].attack.num_steps == 5
    assert methods["fast"].build() == Fast(threat_model=Linf(0.1))
