"""A compiled model is compiled once for each way it is used, and never again."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
from tiny import NUM_CLASSES, active_branch
from torch import Tensor, nn

from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.config.attacks import PAPER_ATTACK
from advprop.config.methods import METHODS, method_config
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Method
from advprop.methods.facts import TrainingFacts
from advprop.methods.step import ADVERSARIAL, Context
from advprop.models.build import build_model
from advprop.randomness import ImageStreams
from advprop.shapes import Batch
from advprop.training.engine import compile_model

ATTACK = PAPER_ATTACK.model_copy(update={"num_steps": 2})
CASES: dict[str, Method] = {
    **{name: method_config(name, ATTACK).build() for name in METHODS},
    "advprop joint": AdvProp(
        attack=PGD(threat_model=Linf(0.1), num_steps=2, step_size=0.1), form="joint"
    ),
}
BATCH_SIZE = 8
State = tuple[object, ...]


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[torch.fx.GraphModule]]:
    """What `compile_model` makes, by a backend that runs the graph as it is."""
    made: list[torch.fx.GraphModule] = []

    def counting(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        made.append(graph)
        return graph.forward

    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, **_: whole(self, backend=counting))
    torch._dynamo.reset()
    yield made
    torch._dynamo.reset()


def branched_net(name: str, method: Method = CASES["advprop"]) -> nn.Module:
    torch.manual_seed(0)
    options = {"mean": [0.5] * 3, "std": [0.25] * 3, "width": 8} if name == "small_resnet" else {}
    model = build_model(name, num_classes=NUM_CLASSES, in_chans=3, **options)
    return add_auxiliary_norms(model, method.auxiliary or (ADVERSARIAL,)).train()


def step(model: nn.Module, method: Method, number: int) -> None:
    indices = torch.arange(BATCH_SIZE)
    images = torch.rand(BATCH_SIZE, 3, 16, 16)
    views = dict.fromkeys(method.views, images)
    labels = indices % NUM_CLASSES
    batch = Batch(images=images, labels=labels, indices=indices, views=views)
    streams = ImageStreams.for_batch(0, number, indices)
    model.zero_grad()
    method.forward_backward(model, batch, Context(step=number, generator=streams))


def validate(model: nn.Module) -> None:
    model.eval()
    with torch.no_grad():
        for size in (BATCH_SIZE, BATCH_SIZE, 5):  # the last batch is smaller
            model(torch.rand(size, 3, 16, 16))
    model.train()


def ways_of_use(model: nn.Module, method: Method) -> set[State]:
    """Branch, mode, and what needs a gradient, for every forward pass of a step."""
    seen = set()

    def look(_: nn.Module, inputs: tuple[Tensor]) -> None:
        (images,) = inputs
        trains = next(model.parameters()).requires_grad
        shape = tuple(images.shape)
        seen.add((active_branch(model), model.training, trains, images.requires_grad, shape))

    model.register_forward_pre_hook(look)
    step(model, method, 0)
    return seen


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(method, id=name, marks=pytest.mark.full if name == "fast" else [])
        for name, method in CASES.items()
    ],
)
def test_a_program_for_each_way_of_use_and_none_in_later_steps(
    method: Method, programs: list[torch.fx.GraphModule]
) -> None:
    model = branched_net("small_resnet", method)
    method.prepare(TrainingFacts(num_images=BATCH_SIZE, image_shape=(3, 16, 16)))
    expected = len(ways_of_use(copy.deepcopy(model), copy.deepcopy(method)))
    compile_model(model)
    counts = []
    for number in range(4):
        step(model, method, number)
        counts.append(len(programs))
    assert counts == [expected] * 4


def test_advprop_has_three_programs(programs: list[torch.fx.GraphModule]) -> None:
    """The attack's, and one for each branch; the layers' names tell whose are which."""
    model = branched_net("small_resnet")
    compile_model(model)
    step(model, CASES["advprop"], 0)
    code = [program.print_readable(print_output=False) for program in programs]
    assert ["clean" in text for text in code] == [False, True, False]
    assert ["adversarial" in text for text in code] == [True, False, True]


def test_validation_between_epochs_compiles_nothing_of_training_anew(
    programs: list[torch.fx.GraphModule],
) -> None:
    model = branched_net("small_resnet")
    compile_model(model)
    counts = []
    for epoch in range(3):
        step(model, CASES["advprop"], epoch)
        counts.append(len(programs))
        validate(model)
        counts.append(len(programs))
    assert counts == [3, 5, 5, 5, 5, 5]  # a program for whole batches, one for any other size


def test_a_net_with_fused_activations_and_drop_path(
    programs: list[torch.fx.GraphModule],
) -> None:
    model = branched_net("efficientnet_lite0")
    compile_model(model)
    for number in range(2):
        step(model, CASES["advprop"], number)
        assert len(programs) == 3
