"""The balls: projection, random starts, directions."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from scipy import stats
from tiny import seeded, tiny_images

from advprop.attacks.threat_models import L2, Linf, ThreatModel
from advprop.randomness import ImageStreams

SUBNORMAL = 2.2e-309
BALLS = [Linf(4 / 255), Linf(0.3), L2(0.5), L2(3.0)]
balls = pytest.mark.parametrize("ball", BALLS, ids=str)


def length(ball: ThreatModel, perturbation: torch.Tensor) -> torch.Tensor:
    order = math.inf if isinstance(ball, Linf) else 2
    return torch.linalg.vector_norm(perturbation.flatten(1), ord=order, dim=1)


@balls
def test_is_a_threat_model(ball: ThreatModel) -> None:
    assert isinstance(ball, ThreatModel)
    assert eval(repr(ball)) == ball
    with pytest.raises(dataclasses.FrozenInstanceError):
        ball.epsilon = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize("epsilon", [0.0, SUBNORMAL, 1e-300, 1e-9, 4 / 255, 0.5, 1.0])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 0.1, 1.0, 1e3])
def test_projection(kind: type[Linf] | type[L2], epsilon: float, scale: float) -> None:
    ball = kind(epsilon)
    points = scale * torch.randn(4, 3, 5, 5, generator=seeded(), dtype=torch.float64)
    nearest = ball.project(points)
    assert (length(ball, nearest) <= epsilon * (1 + 1e-12)).all()
    torch.testing.assert_close(ball.project(nearest), nearest, rtol=1e-12, atol=0)
    inside = length(ball, points) <= epsilon
    assert torch.equal(nearest[inside], points[inside])
    # no point of the ball is nearer: the angle at the projection is not acute
    other = ball.random_start(points, generator=seeded(1))
    product = ((points - nearest) * (other - nearest)).flatten(1).sum(1)
    assert (product <= 1e-9 * (1 + scale)).all()


def test_epsilon_zero_leaves_nothing() -> None:
    images = tiny_images()
    for ball in (Linf(0.0), L2(0.0)):
        assert ball.project(torch.randn_like(images)).count_nonzero() == 0
        assert ball.random_start(images, generator=seeded()).count_nonzero() == 0


@balls
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_random_start_is_inside(ball: ThreatModel, dtype: torch.dtype) -> None:
    start = ball.random_start(tiny_images(64).to(dtype), generator=seeded())
    assert start.dtype == dtype
    rounding = 1 + 4 * torch.finfo(dtype).eps
    assert (length(ball, start.double()) <= ball.epsilon * rounding).all()


def test_linf_start_is_uniform() -> None:
    start = Linf(0.25).random_start(torch.zeros(100, 3, 8, 8), generator=seeded())
    counts = torch.histc(start, bins=20, min=-0.25, max=0.25).numpy()
    assert counts.sum() == start.numel()
    assert stats.chisquare(counts).pvalue > 6e-5


def test_l2_start_is_uniform_in_the_ball() -> None:
    start = L2(2.0).random_start(torch.zeros(4000, 1, 2, 2), generator=seeded()).flatten(1)
    # in n dimensions (radius / epsilon) ** n is uniform, and no direction is preferred
    volume = (start.norm(dim=1) / 2.0) ** 4
    assert stats.kstest(volume.numpy(), "uniform").pvalue > 6e-5
    directions = start / start.norm(dim=1, keepdim=True)
    assert directions.mean(0).abs().max() < 4 * (0.25 / 4000) ** 0.5
    assert (directions.T @ directions / 4000 - torch.eye(4) / 4).abs().max() < 4 * 0.3 / 4000**0.5


@balls
def test_starts_of_images_differ_and_follow_the_generator(ball: ThreatModel) -> None:
    images = torch.zeros(3, 3, 8, 8)
    start = ball.random_start(images, generator=seeded(1))
    assert torch.equal(start, ball.random_start(images, generator=seeded(1)))
    assert not torch.equal(start, ball.random_start(images, generator=seeded(2)))
    assert not torch.equal(start[0], start[1])


@balls
def test_start_of_an_image_is_the_same_in_any_batch(ball: ThreatModel) -> None:
    images = torch.zeros(6, 3, 8, 8)
    whole = ball.random_start(images, generator=ImageStreams.for_batch(0, 0, range(6)))
    part = ball.random_start(images[:2], generator=ImageStreams.for_batch(0, 0, [4, 1]))
    assert torch.equal(part, whole[[4, 1]])


@balls
@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1.0, 1e30])
def test_direction_gains_most(ball: ThreatModel, scale: float) -> None:
    gradient = scale * torch.randn(5, 3, 8, 8, generator=seeded(), dtype=torch.float32)
    direction = ball.ascent_direction(gradient)
    unit = type(ball)(1.0)
    torch.testing.assert_close(length(unit, direction), torch.ones(5))
    gain = (direction.double() * gradient.double()).flatten(1).sum(1)
    dual = gradient.double().flatten(1).norm(p=1 if isinstance(ball, Linf) else 2, dim=1)
    torch.testing.assert_close(gain, dual, rtol=1e-5, atol=0)


@pytest.mark.parametrize("size", [2e-7, 1e-6, 1e-4, 1.0, 6e4])
def test_half_precision_direction_has_length_one(size: float) -> None:
    gradient = torch.full((2, 3, 8, 8), size, dtype=torch.float16)
    direction = L2(1.0).ascent_direction(gradient)
    assert direction.dtype == torch.float16
    torch.testing.assert_close(
        direction.float().flatten(1).norm(dim=1), torch.ones(2), rtol=2e-3, atol=0
    )


@balls
def test_no_gradient_no_direction(ball: ThreatModel) -> None:
    gradient = torch.zeros(3, 3, 8, 8)
    gradient[1] = torch.nan
    gradient[2, 0, 0, 0] = torch.inf
    direction = ball.ascent_direction(gradient)
    assert direction[:2].count_nonzero() == 0
    assert direction[2, 0, 0, 0] == 1
    assert direction[2].count_nonzero() == 1


@balls
def test_empty_batch(ball: ThreatModel) -> None:
    images = torch.zeros(0, 3, 8, 8)
    for result in (
        ball.project(images),
        ball.random_start(images, generator=seeded()),
        ball.ascent_direction(images),
    ):
        assert result.shape == images.shape


@pytest.mark.parametrize("kind", [Linf, L2])
@pytest.mark.parametrize("epsilon", [-0.1, math.nan, math.inf])
def test_impossible_epsilon(kind: type[Linf], epsilon: float) -> None:
    with pytest.raises(ValueError, match=rf"epsilon {epsilon}: give a number of at least 0"):
        kind(epsilon)


def test_linf_epsilon_in_grey_levels() -> None:
    with pytest.raises(ValueError, match=r"epsilon 4: images are in \[0, 1\].*did you mean 4/255"):
        Linf(4)
    assert Linf(1.0).epsilon == 1.0
    assert L2(4).epsilon == 4
