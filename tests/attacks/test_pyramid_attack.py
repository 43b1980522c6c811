"""The pyramid attack: its set, its optimum, its gradient, and PGD as its limit."""

from __future__ import annotations

import math

import pytest
import torch
from tiny import IMAGE_SHAPE, NUM_CLASSES, seeded, tiny_images, tiny_labels, tiny_net
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.attacks.attack import Attack
from advprop.attacks.objectives import given, random_other_class, untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.pyramid import PyramidPGD
from advprop.attacks.scales import Scale, scales_for
from advprop.attacks.threat_models import Linf
from advprop.randomness import ImageStreams, Randomness

# 3 does not divide the edge of 8
ATTACK = PyramidPGD(
    epsilon=4 / 255, num_steps=3, step_size=2 / 255, scales=(4, 3, 1), multipliers=(5.0, 3.0, 1.0)
)


def by_hand(grid: Tensor, size: int, height: int, width: int) -> Tensor:
    """Each pixel takes the value of the patch that it lies in."""
    rows, columns = torch.arange(height) // size, torch.arange(width) // size
    return grid[:, :, rows[:, None], columns[None, :]]


# --- scales


@pytest.mark.parametrize(
    ("edge", "sizes"),
    [(224, [32, 16, 1]), (28, [4, 2, 1]), (32, [4, 2, 1]), (64, [9, 4, 1]), (14, [2, 1]), (8, [1])],
)
def test_scales_follow_the_images(edge: int, sizes: list[int]) -> None:
    scales = scales_for(torch.zeros(1, 3, edge, edge + 1), None, (20.0, 10.0, 1.0))
    assert [scale.size for scale in scales] == sizes
    assert scales[-1].multiplier == 1
    if edge == 224:
        assert [scale.multiplier for scale in scales] == [20, 10, 1]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 11])
@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 10)])
def test_spread_and_pool_are_those_of_autograd(size: int, height: int, width: int) -> None:
    images = torch.rand(2, 3, height, width, dtype=torch.float64)
    scale = Scale(size=size, multiplier=7.0)
    grid = torch.randn_like(scale.grid_like(images)).requires_grad_()
    assert grid.shape[2:] == (math.ceil(height / size), math.ceil(width / size))
    explicit = by_hand(grid, size, height, width)
    torch.testing.assert_close(scale.spread(grid, images), 7 * explicit)
    weights = torch.randn_like(images)
    (expected,) = torch.autograd.grad((weights * explicit).sum(), grid)
    torch.testing.assert_close(scale.pool(weights), expected)


def test_the_gradient_of_a_patch_is_that_of_the_whole_model() -> None:
    """The pooled gradient by pixels against autograd through spreading, adding and the net."""
    model, images, labels = tiny_net().eval().double(), tiny_images().double(), tiny_labels()
    grids, scales = [], [Scale(size=size, multiplier=m) for size, m in ((4, 5.0), (3, 3.0))]
    for scale in scales:
        grids.append((0.01 * torch.randn_like(scale.grid_like(images))).requires_grad_())
    explicit = images + sum(
        scale.multiplier * by_hand(grid, scale.size, 8, 8)
        for grid, scale in zip(grids, scales, strict=True)
    )
    expected = torch.autograd.grad(F.cross_entropy(model(explicit), labels), grids)
    point = explicit.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(point), labels), point)
    for scale, exact in zip(scales, expected, strict=True):
        torch.testing.assert_close(scale.multiplier * scale.pool(gradient), exact)


def test_sums_over_patches_do_not_overflow_in_half_precision() -> None:
    gradient = torch.full((1, 1, 4, 4), 60000.0, dtype=torch.float16)
    gradient[..., :3] = -60000.0
    gradient[0, 0, 0, 0], gradient[0, 0, 0, 3], gradient[0, 0, 1, 0] = (
        -torch.inf,
        torch.inf,
        torch.nan,
    )
    pooled = Scale(size=4, multiplier=1.0).pool(gradient)
    assert pooled.isfinite().all()
    assert pooled.item() < 0  # two thirds of the patch say so


# --- the balls and the box


def step_by_step(
    attack: PyramidPGD, images: Tensor, labels: Tensor, model: nn.Module, randomness: Randomness
) -> list[Tensor]:
    seen: list[Tensor] = []

    def spy(points: Tensor) -> Tensor:
        seen.append(points.detach().clone())
        return model(points)

    seen.append(attack(spy, images, labels, generator=randomness))
    assert len(seen) == attack.num_steps + 1
    return seen


@pytest.mark.parametrize(
    ("epsilon", "step_size", "sizes", "probability"),
    [
        (0.0, 0.0, (1,), 1.0),
        (0.0, 0.3, (4, 2, 1), 0.5),
        (1e-40, 1e-40, (2, 1), 1.0),
        (1e-9, 1e-3, (8, 1), 1.0),
        (4 / 255, 1 / 255, (4, 3, 1), 0.0),
        (4 / 255, 0.3, (9, 5), 0.5),
        (0.2, 1e-9, (1,), 1.0),
        (0.2, 0.05, (7, 4, 2), 0.5),
        (0.2, 0.3, (9, 8, 7), 1.0),
    ],
    ids=str,
)
def test_inside_the_sum_of_balls_and_the_box_at_every_step(
    epsilon: float, step_size: float, sizes: tuple[int, ...], probability: float
) -> None:
    images = tiny_images(6)
    images[0], images[1] = 0.0, 1.0
    multipliers = tuple(float(size) for size in sizes)
    attack = PyramidPGD(
        epsilon=epsilon,
        num_steps=3,
        step_size=step_size,
        scales=sizes,
        multipliers=multipliers,
        random_start_probability=probability,
    )
    for points in step_by_step(attack, images, tiny_labels(6), tiny_net(), seeded()):
        assert points.min() >= 0
        assert points.max() <= 1
        assert (points - images).abs().max() <= epsilon * sum(multipliers) + 1e-6


@pytest.mark.parametrize("start", [0.0, 1.0])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_one_coarse_scale_moves_whole_patches_within_its_ball(size: int, start: float) -> None:
    images = tiny_images(margin=0.3)
    attack = PyramidPGD(
        epsilon=0.01,
        num_steps=4,
        step_size=0.004,
        scales=(size,),
        multipliers=(20.0,),
        random_start_probability=start,
        targets=untargeted,
    )
    for points in step_by_step(attack, images, tiny_labels(), tiny_net().eval(), seeded()):
        change = points - images
        corners = change[:, :, ::size, ::size]
        torch.testing.assert_close(change, by_hand(corners, size, 8, 8), rtol=0, atol=1e-6)
        assert change.abs().max() <= 20 * 0.01 + 1e-6
    assert change.abs().mean() > 0.15  # most patches are at their ball's edge


# --- closed forms


def linear_logits() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(IMAGE_SHAPE), 2)).double()
    return model, (model[1].weight[1] - model[1].weight[0]).detach().view(1, *IMAGE_SHAPE)


@pytest.mark.parametrize("start", [0.0, 1.0])
@pytest.mark.parametrize("margin", [0.3, 0.0], ids=["free", "box active"])
def test_optimum_on_a_linear_model(margin: float, start: float) -> None:
    """Each patch as far as it may, by the sign of its pixels' sum; worked out patch by patch."""
    model, normal = linear_logits()
    images, targets = tiny_images(margin=margin).double(), tiny_labels() % 2
    attack = PyramidPGD(
        epsilon=0.01,
        num_steps=8,
        step_size=0.004,
        scales=(4, 3, 1),
        multipliers=(10.0, 5.0, 1.0),
        random_start_probability=start,
        targets=given,
    )
    adversarial = attack(model, images, targets, generator=seeded())
    change = torch.zeros(1, *IMAGE_SHAPE, dtype=torch.float64)
    for size, multiplier in ((4, 10.0), (3, 5.0), (1, 1.0)):
        for top in range(0, 8, size):
            for left in range(0, 8, size):
                patch = (..., slice(top, top + size), slice(left, left + size))
                sums = normal[patch].sum(dim=(2, 3), keepdim=True)
                change[patch] += 0.01 * multiplier * sums.sign()
    towards = torch.where(targets == 1, 1.0, -1.0).view(-1, 1, 1, 1)
    optimum = (images + towards * change).clamp(0, 1)
    torch.testing.assert_close(adversarial, optimum, rtol=0, atol=1e-9)


def test_raises_the_loss_more_than_pixels_alone() -> None:
    model, images, labels = tiny_net().eval(), tiny_images(32, margin=0.2), tiny_labels(32)

    def loss(attack: Attack) -> Tensor:
        adversarial = attack(model, images, labels, generator=seeded())
        return F.cross_entropy(model(adversarial), labels)

    pyramid = PyramidPGD(scales=(4, 2, 1), targets=untargeted)
    pixels = PyramidPGD(scales=(1,), multipliers=(1.0,), targets=untargeted)
    assert loss(pyramid) > loss(pixels) > F.cross_entropy(model(images), labels)


# --- limits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("start", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("streams", [True, False], ids=["streams", "generator"])
@pytest.mark.parametrize("scales", [(1,), None], ids=["one scale", "images of 8 pixels"])
def test_one_scale_of_one_pixel_is_pgd_bit_for_bit(
    scales: tuple[int, ...] | None, start: float, streams: bool, dtype: torch.dtype
) -> None:
    model, labels = tiny_net().eval().to(dtype), tiny_labels()
    images = tiny_images().to(dtype)
    images[:4] = images[:4].round()  # half of them against the box's walls

    def randomness() -> Randomness:
        return ImageStreams.for_batch(0, 0, range(8)) if streams else seeded()

    steps = {"num_steps": 4, "step_size": 0.03, "random_start_probability": start}
    pyramid = PyramidPGD(
        epsilon=0.07, scales=scales, multipliers=(1.0,) if scales else (20.0, 10.0, 1.0), **steps
    )
    pixels = PGD(threat_model=Linf(0.07), **steps)
    found = pyramid(model, images, labels, generator=randomness())
    assert torch.equal(found, pixels(model, images, labels, generator=randomness()))
    assert not torch.equal(found, images)


def test_epsilon_zero_gives_the_clean_images_bit_for_bit() -> None:
    images = tiny_images()
    attack = PyramidPGD(epsilon=0.0, scales=(4, 2, 1), random_start_probability=1.0)
    adversarial = attack(tiny_net().eval(), images, tiny_labels(), generator=seeded())
    assert torch.equal(adversarial, images)
    assert adversarial.data_ptr() != images.data_ptr()


def test_scales_start_apart() -> None:
    """The grids of one image draw numbers of their own."""
    images, streams = torch.full((1, 1, 2, 2), 0.5), ImageStreams.for_batch(0, 0, [0])

    def start(size: int) -> Tensor:
        attack = PyramidPGD(
            num_steps=0, scales=(size,), multipliers=(1.0,), random_start_probability=1.0
        )
        return attack(nn.Identity(), images, tiny_labels(1), generator=streams)[0, 0, 0, 0]

    assert not torch.isclose(start(2), start(1))


# --- what is given and refused


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_and_type_are_kept(memory_format: torch.memory_format) -> None:
    for dtype in (torch.float32, torch.float16):
        images = tiny_images().to(dtype=dtype, memory_format=memory_format)
        model = tiny_net().eval().to(dtype)
        adversarial = ATTACK(model, images, tiny_labels(), generator=seeded())
        assert adversarial.is_contiguous(memory_format=memory_format)
        assert adversarial.dtype == dtype


def test_soft_labels() -> None:
    model, images, labels = tiny_net().eval(), tiny_images(), tiny_labels()
    one_hot = F.one_hot(labels, NUM_CLASSES).float()
    hard = ATTACK(model, images, labels, generator=seeded())
    torch.testing.assert_close(ATTACK(model, images, one_hot, generator=seeded()), hard)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epsilon": 6.0}, "did you mean 6/255"),
        ({"num_steps": -1}, "num_steps -1: give a whole number"),
        ({"step_size": -0.1}, "step_size -0.1: give a number of at least 0"),
        ({"random_start_probability": 2.0}, "random_start_probability 2.0"),
        ({"multipliers": (5.0, 1.0)}, r"\(5.0, 1.0\) for the scales an edge's 7th and 14th and 1"),
        ({"scales": (4, 1)}, r"\(20.0, 10.0, 1.0\) for the scales \(4, 1\): give one for each"),
        ({"scales": (), "multipliers": ()}, "give one for each"),
        ({"scales": (4, 2, 0)}, "scale 0: give a patch's edge in whole pixels"),
        ({"scales": (4, 2.5, 1)}, "scale 2.5: give a patch's edge in whole pixels"),
        ({"multipliers": (20.0, 0.0, 1.0)}, "multiplier 0.0: give a number above 0"),
    ],
)
def test_impossible_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PyramidPGD(**settings)  # type: ignore[arg-type]


def test_the_paper() -> None:
    attack = PyramidPGD()
    assert (attack.epsilon, attack.num_steps, attack.step_size) == (6 / 255, 5, 1 / 255)
    assert attack.multipliers == (20, 10, 1)
    assert attack.targets is random_other_class
    assert attack.passes_per_image == 5
    assert isinstance(attack, Attack)
