"""Properties of projected gradient descent over threat models."""

from __future__ import annotations

import math
from collections.abc import Iterator

import jaxtyping
import pytest
import torch
from tiny import (
    IMAGE_SHAPE,
    NUM_CLASSES,
    modes,
    seeded,
    tiny_images,
    tiny_labels,
    tiny_net,
)
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.attacks.attack import Attack
from advprop.attacks.fgsm import fgsm
from advprop.attacks.objectives import given, random_other_class, untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.pyramid import PyramidPGD
from advprop.attacks.threat_models import L2, Linf, ThreatModel
from advprop.randomness import ImageStreams

ATTACKS = [
    PGD(threat_model=Linf(8 / 255), num_steps=3, step_size=3 / 255),
    PGD(threat_model=L2(1.0), num_steps=3, step_size=0.4, targets=untargeted),
    PGD(threat_model=Linf(0.1), num_steps=0, step_size=0.0),
    fgsm(Linf(0.05)),
    PyramidPGD(
        epsilon=2 / 255,
        scales=(4, 3, 1),
        multipliers=(4.0, 2.0, 1.0),
        random_start_probability=1.0,
    ),
]
attacks = pytest.mark.parametrize("attack", ATTACKS, ids=["linf", "l2", "noise", "fgsm", "pyramid"])
threat_models = pytest.mark.parametrize("ball", [Linf(8 / 255), L2(1.0)], ids=str)


def lengths(ball: ThreatModel, perturbation: Tensor) -> Tensor:
    order = math.inf if isinstance(ball, Linf) else 2
    return torch.linalg.vector_norm(perturbation.flatten(1), ord=order, dim=1)


def linear_logits(seed: int = 0, *, classes: int = 2) -> tuple[nn.Module, Tensor]:
    """A linear model with two classes, and what separates class 1 from 0."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(IMAGE_SHAPE), classes))
    return model, (model[1].weight[1] - model[1].weight[0]).detach().view(IMAGE_SHAPE)


@pytest.fixture
def _unchecked() -> Iterator[None]:
    """What users get, whose types nobody checks."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# --- the ball and the box


@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize(
    ("epsilon", "step_size", "num_steps", "probability"),
    [
        (0.0, 0.0, 2, 1.0),
        (0.0, 0.5, 2, 0.5),
        (1e-40, 1e-40, 2, 1.0),
        (1e-9, 1e-3, 3, 1.0),
        (4 / 255, 1 / 255, 4, 0.0),
        (4 / 255, 2.0, 3, 0.5),
        (0.3, 1e-9, 1, 1.0),
        (0.3, 0.2, 0, 1.0),
        (1.0, 0.3, 4, 0.5),
        (1.0, 2.0, 2, 1.0),
    ],
)
def test_inside_ball_and_box_at_every_step(
    kind: type[Linf] | type[L2],
    epsilon: float,
    step_size: float,
    num_steps: int,
    probability: float,
) -> None:
    model, _ = linear_logits()
    images = tiny_images(6)
    images[0], images[1] = 0.0, 1.0
    images[2] = images[2].round()
    seen: list[Tensor] = []

    def spy(points: Tensor) -> Tensor:
        seen.append(points.detach().clone())
        return model(points)

    attack = PGD(
        threat_model=kind(epsilon),
        num_steps=num_steps,
        step_size=step_size,
        random_start_probability=probability,
    )
    seen.append(attack(spy, images, tiny_labels(6) % 2, generator=seeded()))
    assert len(seen) == num_steps + 1
    for points in seen:
        assert points.min() >= 0
        assert points.max() <= 1
        assert (lengths(attack.threat_model, points - images) <= epsilon + 1e-6).all()


@threat_models
def test_perturbation_is_about_as_large_as_allowed(ball: ThreatModel) -> None:
    images = tiny_images(16, margin=0.4)  # away from the box's walls
    attack = PGD(threat_model=ball, num_steps=5, step_size=ball.epsilon / 2, targets=untargeted)
    adversarial = attack(tiny_net().eval(), images, tiny_labels(16), generator=seeded())
    sizes = lengths(ball, adversarial - images)
    torch.testing.assert_close(sizes, torch.full((16,), ball.epsilon), rtol=1e-4, atol=0)


# --- closed forms


@pytest.mark.parametrize("margin", [0.2, 0.0], ids=["free", "box active"])
@pytest.mark.parametrize("epsilon", [0.1, 0.6])
def test_linf_optimum_on_a_linear_model(margin: float, epsilon: float) -> None:
    model, normal = linear_logits()
    images = tiny_images(margin=margin)
    targets = tiny_labels() % 2
    attack = PGD(threat_model=Linf(epsilon), num_steps=8, step_size=epsilon / 3, targets=given)
    adversarial = attack(model, images, targets, generator=seeded())
    towards = torch.where(targets == 1, 1.0, -1.0).view(-1, 1, 1, 1)
    optimum = (images + epsilon * towards * normal.sign()).clamp(0, 1)
    torch.testing.assert_close(adversarial, optimum, rtol=0, atol=1e-6)


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_l2_optimum_on_a_linear_model(start: float) -> None:
    model, normal = linear_logits()
    images = tiny_images(margin=0.3)
    labels = tiny_labels() % 2
    attack = PGD(
        threat_model=L2(0.8),
        num_steps=25,
        step_size=0.8,
        random_start_probability=start,
        targets=untargeted,
    )
    adversarial = attack(model, images, labels, generator=seeded())
    away = torch.where(labels == 0, 1.0, -1.0).view(-1, 1, 1, 1)
    optimum = images + 0.8 * away * normal / normal.norm()
    torch.testing.assert_close(adversarial, optimum, rtol=0, atol=1e-5)


@threat_models
def test_raises_the_loss_more_than_noise(ball: ThreatModel) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(32), tiny_labels(32)
    attack = PGD(threat_model=ball, num_steps=5, step_size=ball.epsilon / 2, targets=untargeted)
    noise = PGD(threat_model=ball, num_steps=0, step_size=0.0)

    def losses(images: Tensor) -> Tensor:
        return F.cross_entropy(model(images), labels, reduction="none")

    attacked = losses(attack(model, images, labels, generator=seeded()))
    assert (attacked > losses(images)).all()
    assert (attacked > losses(noise(model, images, labels, generator=seeded()))).all()


# --- limits


def test_one_step_of_size_epsilon_is_fgsm_bit_for_bit() -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    epsilon = 0.05
    point = images.clone().requires_grad_()
    F.cross_entropy(model(point), labels, reduction="sum").backward()
    textbook = (images + (epsilon * point.grad.sign())).clamp(0, 1)
    pgd = PGD(
        threat_model=Linf(epsilon),
        num_steps=1,
        step_size=epsilon,
        random_start_probability=0.0,
        targets=untargeted,
    )
    assert pgd == fgsm(Linf(epsilon))
    adversarial = pgd(model, images, labels)
    assert torch.equal(adversarial, fgsm(Linf(epsilon))(model, images, labels))
    torch.testing.assert_close(adversarial, textbook, rtol=0, atol=1e-7)


def test_a_step_smaller_than_the_ball_is_not_fgsm() -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    attack = PGD(
        threat_model=Linf(0.05),
        num_steps=1,
        step_size=0.02,
        random_start_probability=0.0,
        targets=untargeted,
    )
    assert ((attack(model, images, labels) - images).abs() <= 0.02 + 1e-6).all()


@pytest.mark.parametrize("ball", [Linf(0.0), L2(0.0)], ids=str)
def test_epsilon_zero_gives_the_clean_images_bit_for_bit(ball: ThreatModel) -> None:
    images = tiny_images()
    attack = PGD(threat_model=ball, num_steps=3, step_size=0.1)
    adversarial = attack(tiny_net().eval(), images, tiny_labels(), generator=seeded())
    assert torch.equal(adversarial, images)
    assert adversarial.data_ptr() != images.data_ptr()


@threat_models
def test_zero_steps_give_noise_bit_for_bit(ball: ThreatModel) -> None:
    def never(images: Tensor) -> Tensor:
        raise AssertionError("noise needs no model")

    images = tiny_images()
    noisy = PGD(threat_model=ball, num_steps=0, step_size=0.0)(
        never, images, tiny_labels(), generator=seeded()
    )
    start = ball.random_start(images, generator=seeded())
    torch.testing.assert_close(noisy, (images + start).clamp(0, 1), rtol=0, atol=1e-7)
    assert not torch.equal(noisy, images)


# --- what is left as found


@attacks
def test_nothing_of_the_caller_is_touched(attack: Attack) -> None:
    model = tiny_net(dropout=0.5)
    model[1].eval()
    found = modes(model)
    grads = [torch.randn_like(parameter) for parameter in model.parameters()]
    for parameter, grad in zip(model.parameters(), grads, strict=True):
        parameter.grad = grad.clone()
    parameters = [parameter.clone() for parameter in model.parameters()]
    own = [parameter.grad for parameter in model.parameters()]
    images, labels = tiny_images(), tiny_labels()
    images.requires_grad_()
    images.grad = torch.ones_like(images)
    values = images.detach().clone()
    adversarial = attack(model, images, labels, generator=seeded())
    assert modes(model) == found
    for parameter, grad, mine, before in zip(
        model.parameters(), grads, own, parameters, strict=True
    ):
        assert parameter.grad is mine
        assert torch.equal(parameter.grad, grad)
        assert torch.equal(parameter, before)
    assert images.requires_grad
    assert torch.equal(images, values)
    assert torch.equal(images.grad, torch.ones_like(images))
    assert torch.equal(labels, tiny_labels())
    assert not adversarial.requires_grad
    assert adversarial.grad_fn is None


@attacks
def test_works_without_gradient_mode(attack: Attack) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    expected = attack(model, images, labels, generator=seeded())
    with torch.no_grad():
        assert torch.equal(attack(model, images, labels, generator=seeded()), expected)
        assert not torch.is_grad_enabled()


@attacks
def test_frozen_models_can_be_attacked(attack: Attack) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    expected = attack(model, images, labels, generator=seeded())
    model.requires_grad_(False)
    assert torch.equal(attack(model, images, labels, generator=seeded()), expected)


@attacks
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_is_kept(attack: Attack, memory_format: torch.memory_format) -> None:
    images = tiny_images().to(memory_format=memory_format)
    adversarial = attack(tiny_net().eval(), images, tiny_labels(), generator=seeded())
    assert adversarial.is_contiguous(memory_format=memory_format)


# --- randomness


@attacks
def test_the_generator_decides(attack: PGD | PyramidPGD) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    first = attack(model, images, labels, generator=seeded(1))
    assert torch.equal(first, attack(model, images, labels, generator=seeded(1)))
    other = attack(model, images, labels, generator=seeded(2))
    assert torch.equal(first, other) == (attack.random_start_probability == 0)


@attacks
def test_an_image_meets_the_same_attack_in_any_batch(attack: Attack) -> None:
    # in float64, so that a kernel chosen by batch size turns no sign
    model = tiny_net().eval().double()
    images, labels = tiny_images().double(), tiny_labels()
    whole = attack(model, images, labels, generator=ImageStreams.for_batch(3, 1, range(8)))
    for chosen in ([5], [7, 2, 0]):
        streams = ImageStreams.for_batch(3, 1, chosen)
        part = attack(model, images[chosen], labels[chosen], generator=streams)
        torch.testing.assert_close(part, whole[chosen], rtol=0, atol=1e-12)
    if attack != fgsm(Linf(0.05)):
        other_epoch = ImageStreams.for_batch(3, 2, range(8))
        assert not torch.equal(whole, attack(model, images, labels, generator=other_epoch))


def test_loss_is_summed() -> None:
    # averaged, half precision would lose the gradients of large batches
    sums: list[float] = []

    class Spy(Linf):
        def ascent_direction(self, gradient: Tensor) -> Tensor:
            sums.append(float(gradient[0].abs().sum()))
            return super().ascent_direction(gradient)

    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    for count in (1, 8):
        fgsm(Spy(0.1))(model, images[:count], labels[:count])
    assert sums[1] == pytest.approx(sums[0], rel=1e-4)


@pytest.mark.parametrize("streams", [True, False], ids=["streams", "generator"])
@pytest.mark.parametrize("probability", [0.0, 0.2, 0.75, 1.0])
def test_random_start_probability_holds_for_each_image(probability: float, streams: bool) -> None:
    count = 4000
    images = torch.full((count, 1, 2, 2), 0.5)
    attack = PGD(
        threat_model=Linf(0.1),
        num_steps=0,
        step_size=0.0,
        random_start_probability=probability,
    )
    randomness = ImageStreams.for_batch(0, 0, range(count)) if streams else seeded()
    noisy = attack(nn.Identity(), images, tiny_labels(count), generator=randomness)
    moved = (noisy != images).flatten(1).any(dim=1)
    share = moved.float().mean().item()
    assert abs(share - probability) <= 4 * math.sqrt(probability * (1 - probability) / count)


# --- labels


def test_hard_and_one_hot_labels_agree() -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    one_hot = F.one_hot(labels, NUM_CLASSES).float()
    for rule in (untargeted, given, random_other_class):
        attack = PGD(threat_model=Linf(0.05), num_steps=2, step_size=0.02, targets=rule)
        hard = attack(model, images, labels, generator=seeded())
        soft = attack(model, images, one_hot, generator=seeded())
        torch.testing.assert_close(hard, soft, rtol=0, atol=1e-6)


def test_mixed_labels_steer_by_both_classes() -> None:
    model, images = tiny_net().eval(), tiny_images()
    mixed = torch.zeros(8, NUM_CLASSES)
    mixed[:, 0], mixed[:, 1] = 0.6, 0.4
    attack = PGD(threat_model=L2(1.0), num_steps=3, step_size=0.4, targets=untargeted)
    adversarial = attack(model, images, mixed, generator=seeded())
    before = F.cross_entropy(model(images), mixed, reduction="none")
    assert (F.cross_entropy(model(adversarial), mixed, reduction="none") > before).all()


# --- precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@attacks
def test_autocast_perturbs_as_much_as_float32(attack: Attack, dtype: torch.dtype) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(32), tiny_labels(32)
    full = attack(model, images, labels, generator=seeded()) - images
    with torch.autocast("cpu", dtype=dtype):
        assert model(images).dtype == dtype
        adversarial = attack(model, images, labels, generator=seeded())
    half = adversarial - images
    assert adversarial.dtype == torch.float32
    assert half.abs().mean().item() == pytest.approx(full.abs().mean().item(), rel=0.02)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.1)], ids=str)
@pytest.mark.parametrize("soft", [False, True], ids=["hard labels", "soft labels"])
def test_half_precision_models(ball: ThreatModel, soft: bool) -> None:
    model, images, labels = tiny_net().eval(), tiny_images(margin=0.2), tiny_labels()
    if soft:
        labels = F.one_hot(labels, NUM_CLASSES) * 0.9 + 0.1 / NUM_CLASSES
    attack = PGD(threat_model=ball, num_steps=3, step_size=0.05, targets=untargeted)
    full = attack(model, images, labels, generator=seeded()) - images
    adversarial = attack(model.half(), images.half(), labels, generator=seeded())
    assert adversarial.dtype == torch.float16
    half = adversarial.float() - images
    assert half.abs().mean().item() == pytest.approx(full.abs().mean().item(), rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_confident_half_precision_model_is_attacked_through_its_true_class(
    dtype: torch.dtype,
) -> None:
    # probability minus one is zero in half precision: the loss has to be taken in float32
    images = torch.full((1, 1, 1, NUM_CLASSES), 0.1)
    images[..., 0] = 0.9

    def logits_of(points: Tensor) -> Tensor:  # one pixel a class, a margin of 12
        return (15 * points.flatten(1)).to(dtype)

    change = fgsm(Linf(0.05))(logits_of, images, torch.tensor([0])) - images
    expected = torch.tensor([-0.05, 0.05, 0.05, 0.05, 0.05])
    torch.testing.assert_close(change.flatten(), expected, rtol=0, atol=1e-6)


def test_weights_still_learn_under_the_same_autocast() -> None:
    # autocast caches the weights it converts: a copy made without gradients would cut them off
    model = tiny_net()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        adversarial = ATTACKS[0](model, tiny_images(), tiny_labels(), generator=seeded())
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        F.cross_entropy(model(adversarial), tiny_labels()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# --- what is refused


@pytest.mark.parametrize("num_steps", [-1, 2.5])
def test_impossible_steps(num_steps: float) -> None:
    with pytest.raises(ValueError, match=rf"num_steps {num_steps}: give a whole number"):
        PGD(threat_model=Linf(0.1), num_steps=num_steps, step_size=0.1)  # type: ignore[arg-type]


@pytest.mark.parametrize("step_size", [-0.1, math.nan, math.inf])
def test_impossible_step_size(step_size: float) -> None:
    with pytest.raises(ValueError, match=rf"step_size {step_size}: give a number of at least 0"):
        PGD(threat_model=Linf(0.1), num_steps=1, step_size=step_size)


@pytest.mark.parametrize("probability", [-0.1, 1.1, math.nan])
def test_impossible_probability(probability: float) -> None:
    with pytest.raises(ValueError, match=rf"random_start_probability {probability}: .*\[0, 1\]"):
        PGD(
            threat_model=Linf(0.1),
            num_steps=1,
            step_size=0.1,
            random_start_probability=probability,
        )


@pytest.mark.parametrize("value", [-0.5, 2.1, math.inf])
def test_images_outside_the_box(value: float) -> None:
    images = tiny_images()
    images[3, 0, 0, 0] = value
    with pytest.raises(ValueError, match=r"images have values from .* to .*standardized\(model\)"):
        ATTACKS[0](tiny_net(), images, tiny_labels())


def test_images_with_nan() -> None:
    images = tiny_images()
    images[3, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="images contain NaN"):
        ATTACKS[0](tiny_net(), images, tiny_labels())


def test_images_outside_by_rounding_are_put_right() -> None:
    images = tiny_images()
    images[0], images[1] = -3e-8, 1 + 1e-7
    adversarial = ATTACKS[0](tiny_net().eval(), images, tiny_labels(), generator=seeded())
    assert adversarial.min() >= 0
    assert adversarial.max() <= 1


@pytest.mark.usefixtures("_unchecked")
def test_images_of_whole_numbers() -> None:
    images = (255 * tiny_images()).to(torch.uint8)
    with pytest.raises(ValueError, match=r"images are torch.uint8: .*divide by 255"):
        ATTACKS[0](tiny_net(), images, tiny_labels())


def test_inference_mode_is_refused_with_the_remedy() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"use torch.no_grad\(\)"):
        ATTACKS[0](tiny_net(), tiny_images(), tiny_labels())


def test_attacks_are_values() -> None:
    first, second = (
        PGD(threat_model=Linf(0.1), num_steps=2, step_size=0.05, targets=given) for _ in range(2)
    )
    assert first == second
    assert "num_steps=2" in repr(first)
    assert isinstance(first, Attack)
    assert first.passes_per_image == 2.0
