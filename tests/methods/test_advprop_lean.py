"""Perturbations that are carried: through frames, over epochs, and where to."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from case import Case
from tiny import IMAGE_SHAPE, gradients, seeded, tiny_images, tiny_labels, tiny_net
from torch import Tensor, nn
from torch.nn import functional as F

from advprop.attacks.threat_models import L2, Linf
from advprop.data.batches.loaders import train_batches
from advprop.data.sets.builtin import load_builtin
from advprop.methods.advprop_lean import AdvPropLean
from advprop.methods.facts import TrainingFacts
from advprop.methods.kept.frames import Perturbed, shown
from advprop.methods.step import Context, StepMetrics
from advprop.models.build import build_model
from advprop.randomness import ImageStreams
from advprop.shapes import Batch

EPSILON = 8 / 255
METHOD = AdvPropLean(threat_model=Linf(EPSILON), attacked_fraction=0.5)
FACTS = TrainingFacts(num_images=8, image_shape=IMAGE_SHAPE)
# half of the images are clean, half adversarial
LEAN = Case(
    method=METHOD,
    weights={"clean": 0.5, "adversarial": 0.5},
    counts={"clean": 4, "adversarial": 4},
)
CASES = {
    "advprop_lean": LEAN,
    "advprop_lean l2": dataclasses.replace(
        LEAN, method=dataclasses.replace(LEAN.method, threat_model=L2(1.0)), largest=0.1
    ),
}


def prepared(
    method: AdvPropLean = METHOD, facts: TrainingFacts = FACTS, **settings: Any
) -> AdvPropLean:
    method = dataclasses.replace(method, **settings)
    method.prepare(facts)
    return method


def at_zero(method: AdvPropLean) -> AdvPropLean:
    """`method`, whose images have perturbations of 0 before epoch 1."""
    store = method.memory["store"]
    store.write(torch.arange(store.num_images), torch.zeros(store.num_images, *store.shape), 0)
    return method


def twice(**fields: Tensor | None) -> dict[str, Tensor | None]:
    """A batch's fields, the same images clean and then adversarial."""
    fields = {"images": tiny_images(), "labels": tiny_labels(), **fields}
    fields = {"indices": torch.arange(len(fields["images"])), **fields}
    return {name: None if of is None else torch.cat([of, of]) for name, of in fields.items()}


def step(
    method: AdvPropLean, model: nn.Module, epoch: int | None, *, seed: int = 0, **fields: Any
) -> StepMetrics:
    batch = Batch(**fields)
    streams = ImageStreams.for_batch(seed, epoch or 0, batch.indices)
    return method.forward_backward(model, batch, Context(epoch=epoch, generator=streams))


def carried(method: AdvPropLean, epoch: int, indices: list[int] | None = None) -> Tensor:
    """What images have at the beginning of an epoch."""
    store = method.memory["store"]
    chosen = torch.arange(8) if indices is None else torch.tensor(indices)
    return store.encoding.decoded(store.read(chosen, epoch)[0])


def watched(model: nn.Module) -> list[Tensor]:
    seen: list[Tensor] = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().clone()))
    return seen


# --- frames


def bilinear_matrix(frame: list[list[float]], side: int) -> np.ndarray:
    """Row by row, what each pixel of a view takes of each pixel of its source."""
    matrix = np.zeros((side, side, side, side))
    for row in range(side):
        for column in range(side):
            across, down = (2 * column + 1) / side - 1, (2 * row + 1) / side - 1
            x = frame[0][0] * across + frame[0][1] * down + frame[0][2]
            y = frame[1][0] * across + frame[1][1] * down + frame[1][2]
            x, y = (min(max((place + 1) * side / 2 - 0.5, 0), side - 1) for place in (x, y))
            for source_row in range(side):
                for source_column in range(side):
                    weight = max(0, 1 - abs(y - source_row)) * max(0, 1 - abs(x - source_column))
                    matrix[row, column, source_row, source_column] = weight
    return matrix.reshape(side**2, side**2)


UPPER_LEFT_FLIPPED = [[-0.5, 0.0, -0.5], [0.0, 0.75, -0.25]]
INNER = [[0.7, 0.0, 0.1], [0.0, 0.4, -0.2]]
FRAMES = torch.tensor([UPPER_LEFT_FLIPPED, INNER])


def test_views_show_what_is_kept_at_their_frames() -> None:
    kept = torch.rand(2, 3, 6, 6, generator=seeded())
    views = shown(kept, FRAMES)
    for view, source, frame in zip(views, kept, FRAMES.tolist(), strict=True):
        matrix = torch.from_numpy(bilinear_matrix(frame, 6)).float()
        torch.testing.assert_close(view.flatten(1), source.flatten(1) @ matrix.T)
    assert shown(kept, None) is kept


def test_a_crop_along_pixels_and_a_flip_move_whole_pixels() -> None:
    """The left half of six columns, flipped: each column twice, from the third to the first."""
    kept = torch.rand(1, 1, 6, 6, generator=seeded())
    whole_rows = torch.tensor([[[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    torch.testing.assert_close(shown(kept, whole_rows), kept.flip(3))


def test_frames_mean_what_affine_grid_means() -> None:
    kept = torch.rand(2, 3, 7, 5, generator=seeded())
    grid = F.affine_grid(FRAMES, [2, 3, 7, 5], align_corners=False)
    expected = F.grid_sample(kept, grid, padding_mode="border", align_corners=False)
    torch.testing.assert_close(shown(kept, FRAMES), expected)


def test_frames_are_as_exact_under_autocast() -> None:
    kept = torch.rand(2, 3, 64, 64, generator=seeded())
    exact = shown(kept, FRAMES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(shown(kept, FRAMES), exact)


# --- by hand


def linear_model(direction: Tensor) -> nn.Module:
    """Two classes, logits a product with `direction` and its negative; layers in eval mode."""
    side = direction.shape[-1]
    net = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(side**2, 2, bias=False))
    with torch.no_grad():
        net[2].weight.copy_(torch.stack([-direction.flatten(), direction.flatten()]))
    net.eval()
    net.training = True
    return net


def test_it_goes_on_where_the_last_epoch_ended_seen_through_another_crop() -> None:
    """A linear model, whose ascent is known; the warp as an explicit matrix, and transposed."""
    direction = torch.randn(4, 4, generator=seeded(3))
    model = linear_model(direction)
    seen = watched(model)
    level = EPSILON / 127  # whole multiples are kept exactly
    facts = TrainingFacts(num_images=5, image_shape=(1, 4, 4))
    method = at_zero(prepared(facts=facts, step_size=90 * level))
    images = 0.2 + 0.6 * torch.rand(2, 1, 4, 4, generator=seeded())
    labels = torch.tensor([0, 1])
    up = torch.stack([direction, -direction]).double()  # up the loss: away from the labels
    expected = torch.zeros(2, 16, dtype=torch.float64)  # in levels
    for epoch, frames in enumerate((FRAMES, FRAMES.flip(0), None, FRAMES), start=1):
        seen.clear()
        shares = {"images": images, "labels": labels, "indices": torch.tensor([4, 1])}
        metrics = step(method, model, epoch, **twice(frames=frames, **shares))
        maps = (
            [np.eye(16)] * 2
            if frames is None
            else [bilinear_matrix(frame, 4) for frame in frames.tolist()]
        )
        for number, matrix in enumerate(torch.from_numpy(np.stack(maps))):
            view = level * (matrix @ expected[number])
            found = seen[0][2 + number]
            torch.testing.assert_close(found, images[number] + view.view(1, 4, 4).float())
            ascent = (matrix.T @ up[number].flatten()).sign()
            expected[number] = (expected[number] + 90 * ascent).clamp(-127, 127)
            if frames is not None:  # what the view does not show stays
                unseen = matrix.sum(dim=0) == 0
                assert unseen.any()
                assert (ascent[unseen] == 0).all()
        now = carried(method, epoch + 1, [4, 1]).double() / level
        torch.testing.assert_close(now.flatten(1), expected, rtol=0, atol=1e-3)
        assert 0 < metrics.perturbation.item() < EPSILON or epoch == 1
    assert not carried(method, 5, [0, 2, 3]).any()


def test_the_gradients_are_those_of_one_pass() -> None:
    """Of the weights and the perturbations, in training mode, at the perturbed images."""
    model, reference = tiny_net().train(), tiny_net().train()
    method = prepared(step_size=EPSILON / 2)
    start = EPSILON * (2 * torch.rand(8, *IMAGE_SHAPE, generator=seeded()) - 1)
    method.memory["store"].write(torch.arange(8), start, 0)
    kept = carried(method, 1).requires_grad_()
    images = tiny_images(margin=0.1)
    metrics = step(method, model, 1, **twice(images=images))
    logits = reference(torch.cat([images, images + kept]))
    loss = F.cross_entropy(logits, tiny_labels().repeat(2))
    loss.backward()
    torch.testing.assert_close(metrics.loss, loss.detach())
    torch.testing.assert_close(gradients(model), gradients(reference))
    expected = (kept + EPSILON / 2 * kept.grad.sign()).clamp(-EPSILON, EPSILON)
    half = EPSILON / 254 + 1e-7
    assert ((carried(method, 2) - expected).abs() <= half).float().mean() > 0.999


def test_a_value_that_is_clipped_can_come_back() -> None:
    """Black pixels that are darkened in vain: the gradient says brighter, so they become so."""
    model = linear_model(torch.ones(4, 4))
    facts = TrainingFacts(num_images=2, image_shape=(1, 4, 4))
    method = prepared(facts=facts)
    method.memory["store"].write(torch.arange(2), torch.full((2, 1, 4, 4), -EPSILON), 0)
    black = twice(images=torch.zeros(2, 1, 4, 4), labels=torch.tensor([0, 0]))
    metrics = step(method, model, 1, **black)
    assert metrics.perturbation == 0
    assert not carried(method, 2, [0, 1]).any()
    step(method, model, 2, **black)
    assert torch.equal(carried(method, 3, [0, 1]), torch.full((2, 1, 4, 4), EPSILON))


@pytest.mark.parametrize("ball", [Linf(EPSILON), L2(0.5)], ids=str)
def test_a_view_stays_in_the_threat_model(ball: Linf | L2) -> None:
    """A view that magnifies a part of an image magnifies the length of its perturbation too."""
    images = torch.full((2, *IMAGE_SHAPE), 0.5)
    kept = torch.zeros(2, *IMAGE_SHAPE)
    kept[:, :, 2:5, 1:5] = 0.1  # both views show it
    kept = ball.project(kept)
    perturbation = Perturbed(images, kept, FRAMES, ball).points.detach() - images
    if isinstance(ball, Linf):
        assert perturbation.abs().max() <= EPSILON + 1e-7
        assert perturbation.abs().max() > 0.9 * EPSILON
    else:
        wide = shown(kept, FRAMES).flatten(1).norm(dim=1)
        assert wide.min() > 0.6
        lengths = perturbation.flatten(1).norm(dim=1)
        torch.testing.assert_close(lengths, torch.full((2,), 0.5))


def test_l2_perturbations_move_along_the_gradient() -> None:
    direction = torch.randn(4, 4, generator=seeded(3))
    facts = TrainingFacts(num_images=2, image_shape=(1, 4, 4))
    method = at_zero(prepared(facts=facts, threat_model=L2(0.5), step_size=0.2))
    grey = twice(images=torch.full((2, 1, 4, 4), 0.5), labels=torch.tensor([0, 0]))
    for epoch, length in enumerate((0.2, 0.4, 0.5, 0.5), start=1):
        step(method, linear_model(direction), epoch, **grey)
        expected = length * direction / direction.norm()
        found = carried(method, epoch + 1, [0])[0, 0]
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-4)


# --- starts


def test_random_starts_depend_on_the_image_alone() -> None:
    seen = []
    for order in ([0, 1, 2, 3], [3, 1]):
        method, model = prepared(), tiny_net().train()
        noted = watched(model)
        batch = {"images": tiny_images()[order], "labels": tiny_labels()[order]}
        step(method, model, 0, **twice(indices=torch.tensor(order), **batch))
        seen.append(noted[0][len(order) :] - tiny_images()[order])
    torch.testing.assert_close(seen[0][[3, 1]], seen[1])
    method, model = prepared(), tiny_net().train()
    noted = watched(model)
    first = {"images": tiny_images()[:4], "labels": tiny_labels()[:4], "indices": torch.arange(4)}
    step(method, model, 0, **first)
    torch.testing.assert_close(noted[0][2:] - tiny_images()[2:4], seen[0][2:])
    assert seen[0].abs().max() <= EPSILON + 1e-6
    assert 0.3 * EPSILON < seen[0].abs().mean() < 0.6 * EPSILON
    assert not torch.equal(seen[0][0], seen[0][1])


def test_only_images_that_are_new_start() -> None:
    method, model = prepared(), tiny_net().train()
    step(method, model, 0, **twice(images=tiny_images()[:4], labels=tiny_labels()[:4]))
    before, noted = carried(method, 1), watched(model)
    step(method, model, 1, **twice())
    moved = noted[0][8:] - tiny_images()
    old = (tiny_images() + before).clamp(0, 1) - tiny_images()
    assert torch.equal(moved[:4], old[:4])
    assert not torch.equal(moved[4:], old[4:])


# --- batches


def test_the_first_part_of_a_batch_stays_clean() -> None:
    method, model = prepared(attacked_fraction=0.25), tiny_net()
    noted = watched(model.train())
    batch = {"images": tiny_images(), "labels": tiny_labels(), "indices": torch.arange(8)}
    metrics = step(method, model, 0, **batch)
    (images,) = noted
    assert torch.equal(images[:6], tiny_images()[:6])
    assert (images[6:] - tiny_images()[6:]).flatten(1).any(dim=1).all()
    store = method.memory["store"]
    assert store.read(torch.arange(8), 1)[1].tolist() == [0, 1, 2, 3, 4, 5]
    assert metrics.kinds["clean"].share == 0.75
    with pytest.raises(ValueError, match=r"attacked_fraction 0\.25 of 4 images makes 1 advers"):
        step(method, model, 0, **{name: of[:4] for name, of in batch.items()})


def test_of_several_processes_the_first_use_of_an_image_alone_is_kept(tmp_path: Path) -> None:
    copies, indices = torch.tensor([0, 1, 0, 40]), torch.tensor([2, 2, 3, 5])
    batch = {"images": tiny_images(4), "labels": tiny_labels(4), "indices": indices}
    for processes, written in ((1, [2, 3, 5]), (2, [2, 3])):
        facts = dataclasses.replace(
            FACTS, folder=tmp_path / str(processes), num_processes=processes
        )
        method = prepared(facts=facts)
        step(method, tiny_net().train(), 0, **twice(copies=copies, **batch))
        new = method.memory["store"].read(torch.arange(8), 1)[1].tolist()
        assert sorted({*range(8)} - {*new}) == written


def test_the_layout_of_images_is_kept() -> None:
    images = tiny_images().contiguous(memory_format=torch.channels_last)
    for frames in (None, FRAMES.repeat(4, 1, 1)):
        points = Perturbed(images, torch.zeros(8, *IMAGE_SHAPE), frames, Linf(0.1)).points
        assert points.is_contiguous(memory_format=torch.channels_last)
        assert points.is_leaf
    half = Perturbed(images.half(), torch.zeros(8, *IMAGE_SHAPE), None, Linf(0.1))
    assert half.points.dtype == torch.float16


# --- is it adversarial?


def test_what_is_carried_raises_the_loss_more_than_noise_of_its_size() -> None:
    """Against the perturbations of other images: the same sizes, the wrong images."""
    data = load_builtin("digits", num_train=200)
    method = AdvPropLean(threat_model=Linf(0.1), attacked_fraction=0.5)
    method.prepare(TrainingFacts(num_images=200, image_shape=data.image_shape))
    torch.manual_seed(0)
    look = {"in_chans": 1, "mean": [0.3], "std": [0.4]}
    model = build_model("small_resnet", num_classes=10, width=8, stem_stride=1, **look)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(12):
        for batch in train_batches(data.train, batch_size=40, seed=0, epoch=epoch):
            streams = ImageStreams.for_batch(0, epoch, batch.indices)
            optimizer.zero_grad()
            context = Context(epoch=epoch, generator=streams)
            method.forward_backward(model.train(), batch, context)
            optimizer.step()
    batch = data.train.__getitems__([(None, index) for index in range(200)])
    kept = carried(method, 12, [*range(200)])
    losses = {}
    model.eval()
    with torch.no_grad():
        for name, perturbation in (("own", kept), ("others'", kept.roll(7, 0)), ("none", 0 * kept)):
            images = (batch.images + perturbation).clamp(0, 1)
            losses[name] = F.cross_entropy(model(images), batch.labels, reduction="none")
    assert losses["none"].mean() < 0.5  # it has learnt
    difference = losses["own"] - losses["others'"]
    assert difference.mean() > 5 * difference.std() / 200**0.5
    assert losses["own"].mean() > 1.5 * losses["others'"].mean()


# --- refusals and state


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_size": -1.0}, r"step_size -1\.0: give a number of at least 0"),
        ({"step_size": EPSILON / 200}, r"step_size 0\.00015.* less than .* 0\.00024.*: take a"),
        ({"attacked_fraction": 1.0}, r"attacked_fraction 1\.0: give one .* below 1"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(METHOD, **settings)
    dataclasses.replace(METHOD, threat_model=L2(EPSILON), step_size=EPSILON / 200)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"mixes_images": True}, r"mixup and CutMix make images of two: set data\.mixing\.mixup=0"),
        ({"num_machines": 2, "num_processes": 4}, "by 2 machines: .*train on one machine"),
        ({"num_processes": 2, "folder": None}, "2 processes without a folder: .* share a file"),
        ({"num_processes": 2, "repeats": 2}, r"2 repeats .*set data\.sampling\.repeats=1"),
    ],
)
def test_trainings_that_cannot_be(facts: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        prepared(facts=dataclasses.replace(FACTS, **{"folder": tmp_path, **facts}))


def test_what_is_missing_is_named() -> None:
    model = tiny_net().train()
    with pytest.raises(ValueError, match=r"prepare\(advprop\.TrainingFacts\(num_images=.*3, 8, 8"):
        step(dataclasses.replace(METHOD), model, 0, **twice())
    with pytest.raises(ValueError, match=r"no indices, .*advprop\.Batch\(images"):
        prepared().forward_backward(model, tiny_images(), tiny_labels())
    small = twice(images=tiny_images()[..., :4])
    with pytest.raises(ValueError, match=r"shape \(3, 8, 4\), .* kept for \(3, 8, 8\): give"):
        step(prepared(), model, 0, **small)
    with pytest.raises(ValueError, match="image 8: perturbations are kept for 8 images, 0 to 7"):
        step(prepared(), model, 0, **twice(indices=torch.arange(1, 9)))
    with pytest.raises(ValueError, match=r"standardized\(model\)"):
        step(prepared(), model, 0, **twice(images=2 * tiny_images()))
    with pytest.raises(ValueError, match="prepare the method before its state is loaded"):
        dataclasses.replace(METHOD).load_state_dict({})


@pytest.mark.parametrize("in_file", [False, True])
def test_a_loop_of_ones_own_resumes_exactly(in_file: bool, tmp_path: Path) -> None:
    folder = tmp_path / "kept" if in_file else None
    facts = dataclasses.replace(FACTS, folder=folder)

    def train(method: AdvPropLean, model: nn.Module, epochs: range) -> None:
        for epoch in epochs:
            step(method, model, epoch, **twice(images=tiny_images(seed=epoch)))

    method, model = prepared(facts=facts), tiny_net().train()
    train(method, model, range(2))
    states = method.state_dict(), {k: v.clone() for k, v in model.state_dict().items()}
    train(method, model, range(2, 3))
    whole = carried(method, 3)
    again, other = prepared(facts=facts), tiny_net().train()
    again.load_state_dict(states[0])
    other.load_state_dict(states[1])
    train(again, other, range(2, 3))
    assert torch.equal(carried(again, 3), whole)
    assert prepared().state_dict().keys() == {"identity", "epochs", "values"}
    assert dataclasses.replace(METHOD).state_dict() == {}


def test_without_epochs_it_is_carried_from_step_to_step() -> None:
    method, model = at_zero(prepared()), tiny_net().train()
    noted = watched(model)
    for _ in range(3):
        before = carried(method, None)
        step(method, model, None, **twice())
        assert torch.equal(noted[-1][8:], (tiny_images() + before).clamp(0, 1))
    assert before.abs().max() > 0


def test_a_failing_step_carries_nothing() -> None:
    method, model = prepared(), tiny_net().train()
    step(method, model, 0, **twice())
    before = method.state_dict()["values"]

    def fail(loss: Tensor) -> None:
        raise KeyError

    batch = Batch(images=tiny_images(), labels=tiny_labels(), indices=torch.arange(8))
    with pytest.raises(KeyError):
        method.forward_backward(model, batch, Context(epoch=1, backward=fail))
    assert torch.equal(method.state_dict()["values"], before)
