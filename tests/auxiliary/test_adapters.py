"""Small adapters as branches: every layer that a model had is shared."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from branch_nets import COPIES, check_twin, output
from test_conversions import CountingBackend
from timm_families import FAMILIES, Family
from tiny import NUM_CLASSES, seeded, tiny_images, tiny_labels, tiny_vit
from torch import Tensor, nn

from advprop.assembly import unused_branches
from advprop.attacks.pgd import PGD
from advprop.auxiliary.adapter import AuxiliaryAdapter, add_auxiliary_adapters
from advprop.auxiliary.branches import (
    branch_names,
    branch_parameters,
    has_auxiliary_norms,
    no_branch,
    splits_batches,
    use_branch,
)
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms
from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.exporting import load_export
from advprop.methods.advprop import AdvProp
from advprop.methods.base import Context
from advprop.models.standardize import standardized
from advprop.planning import plan
from advprop.recipes.builtin import digits
from advprop.run_folder import export, load_run
from advprop.runs import train
from advprop.threat_models import Linf

BRANCHES = ("clean", "adversarial")
ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=1, step_size=6 / 255)


def adapters(model: nn.Module) -> list[AuxiliaryAdapter]:
    return [layer for layer in model.modules() if isinstance(layer, AuxiliaryAdapter)]


@torch.no_grad()
def move(model: nn.Module, branch: str = "adversarial") -> nn.Module:
    """Have one branch add something to every layer."""
    generator = seeded(7)
    for layer in adapters(model):
        up = layer.branches[branch].up.weight
        up.add_(0.3 * torch.randn(up.shape, generator=generator))
    return model


def apart() -> nn.Module:
    """A small transformer whose branches no longer agree."""
    return move(add_auxiliary_adapters(tiny_vit())).eval()


def pointwise_net() -> nn.Sequential:
    """Convolutions of one pixel, one of them with a stride, one in groups, and one of nine."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 8, 1, groups=2),
        nn.GELU(),
        nn.Conv2d(8, 12, 1, stride=2),
        nn.GELU(),
        nn.Conv2d(12, 6, 1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    ).eval()


# --- adding and removing


def test_outputs_are_those_of_before_in_every_branch() -> None:
    plain = tiny_vit().eval()
    model = add_auxiliary_adapters(copy.deepcopy(plain), ("adversarial", "noise")).eval()
    assert branch_names(model) == (*BRANCHES, "noise")
    for name in branch_names(model):
        assert torch.equal(output(model, name, tiny_images()), plain(tiny_images()))
    move(model)
    for name in (*BRANCHES, "noise"):
        is_equal = torch.equal(output(model, name, tiny_images()), plain(tiny_images()))
        assert is_equal == (name != "adversarial")


def test_which_layers_have_one() -> None:
    model = add_auxiliary_adapters(tiny_vit())
    assert not isinstance(model.head, AuxiliaryAdapter)
    linear = [module for module in tiny_vit().modules() if type(module) is nn.Linear]
    assert len(adapters(model)) == len(linear) - 1
    convolutions = add_auxiliary_adapters(pointwise_net(), rank=2)
    assert [isinstance(layer, AuxiliaryAdapter) for layer in convolutions] == [
        *(False, False, False, True, False, True, False, False)
    ]
    chosen = add_auxiliary_adapters(
        tiny_vit(), is_adapted=lambda layer: layer.out_features == NUM_CLASSES
    )
    assert len(adapters(chosen)) == 1


def test_clean_is_removed_without_a_trace() -> None:
    plain, model = tiny_vit().eval(), apart()
    assert remove_auxiliary_norms(model) is model
    assert not has_auxiliary_norms(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [type(module) for module in model.modules()] == [
        type(module) for module in plain.modules()
    ]
    assert torch.equal(model(tiny_images()), plain(tiny_images()))


@pytest.mark.parametrize("build", [tiny_vit, pointwise_net], ids=["transformer", "convolutions"])
def test_another_branch_becomes_part_of_the_weights(build: Callable[[], nn.Module]) -> None:
    plain = build().eval()
    model = move(add_auxiliary_adapters(copy.deepcopy(plain))).eval()
    expected = output(model, "adversarial", tiny_images())
    remove_auxiliary_norms(model, keep="adversarial")
    assert list(model.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(model(tiny_images()), expected)
    assert not torch.allclose(plain(tiny_images()), expected)


def test_what_a_branch_adds_by_hand() -> None:
    layer = nn.Linear(3, 2)
    model = move(add_auxiliary_adapters(nn.Sequential(layer), rank=1))
    (adapter,) = adapters(model)
    down, up = adapter.branches["adversarial"].down.weight, adapter.branches["adversarial"].up
    numbers = torch.rand(5, 3, generator=seeded())
    expected = layer(numbers) + (numbers @ down.T) @ up.weight.T
    assert torch.equal(output(model, "adversarial", numbers), expected)
    assert adapter.weight is layer.weight
    with use_branch(model, "adversarial"):
        assert torch.equal(adapter.weight, layer.weight + up.weight @ down)


def test_every_layer_is_shared() -> None:
    model = add_auxiliary_adapters(tiny_vit(), rank=2)
    groups = branch_parameters(model)
    assert groups["clean"] == []
    shared = {id(parameter) for parameter in groups["shared"]}
    count = sum(parameter.numel() for parameter in groups["shared"])
    assert count == sum(parameter.numel() for parameter in tiny_vit().parameters())
    own = groups["adversarial"]
    assert len(own) == 2 * len(adapters(model))
    assert not shared & {id(parameter) for parameter in own}
    sizes = [2 * (layer.in_features + layer.out_features) for layer in adapters(model)]
    assert sum(parameter.numel() for parameter in own) == sum(sizes)


@pytest.mark.parametrize("build", [tiny_vit, pointwise_net], ids=["transformer", "convolutions"])
def test_parts_of_a_batch_go_through_their_own_branches(build: Callable[[], nn.Module]) -> None:
    model = move(add_auxiliary_adapters(build())).eval()
    assert splits_batches(model)
    images = tiny_images()
    with torch.no_grad(), use_branch(model, BRANCHES, shares=(3, 1)):
        together = model(images)
    torch.testing.assert_close(together[:6], output(model, "clean", images)[:6])
    torch.testing.assert_close(together[6:], output(model, "adversarial", images)[6:])


# --- what else is done to a model


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_copies_are_alike_and_switched_on_their_own(
    change: Callable[[nn.Module, nn.Module], nn.Module],
) -> None:
    model = apart()
    twin = change(model, add_auxiliary_adapters(tiny_vit(seed=5)).eval())
    check_twin(model, twin)


@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
def test_a_plain_checkpoint_loads_into_every_branch(assign: bool) -> None:
    plain, model = tiny_vit(seed=3).eval(), apart()
    model.load_state_dict(plain.state_dict(), assign=assign)
    for name in BRANCHES:
        assert torch.equal(output(model, name, tiny_images()), plain(tiny_images()))
    move(model)  # and they are free to part
    assert torch.equal(output(model, "clean", tiny_images()), plain(tiny_images()))
    assert not torch.equal(output(model, "adversarial", tiny_images()), plain(tiny_images()))


def test_a_checkpoint_that_lacks_a_tensor_is_refused() -> None:
    checkpoint = tiny_vit().state_dict()
    del checkpoint["blocks.0.mlp.fc1.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*blocks\.0\.mlp\.fc1\.layer\.weight"):
        apart().load_state_dict(checkpoint)


def test_frozen_layers_have_frozen_adapters() -> None:
    plain = tiny_vit()
    plain.blocks[0].mlp.fc1.weight.requires_grad_(False)
    model = add_auxiliary_adapters(plain)
    frozen = [p for p in branch_parameters(model)["adversarial"] if not p.requires_grad]
    assert len(frozen) == 2


def test_each_branch_compiles_once() -> None:
    torch.compiler.reset()
    backend, eager = CountingBackend(), apart()
    compiled = torch.compile(copy.deepcopy(eager), backend=backend, fullgraph=True)
    for _ in range(2):
        for name in BRANCHES:
            with use_branch(eager, name), use_branch(compiled, name):
                torch.testing.assert_close(compiled(tiny_images()), eager(tiny_images()))
    assert backend.graphs == 2
    torch.compiler.reset()


# --- what is refused


def test_what_is_refused() -> None:
    model = apart()
    for again in (add_auxiliary_adapters, add_auxiliary_norms):
        with pytest.raises(ValueError, match="remove_auxiliary_norms first"):
            again(model)
    with pytest.raises(ValueError, match="rank 0: give at least 1"):
        add_auxiliary_adapters(tiny_vit(), rank=0)
    with pytest.raises(ValueError, match="found no linear layer to adapt"):
        add_auxiliary_adapters(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(ValueError, match='branch "noise" unknown, this model has clean, adv'):
        remove_auxiliary_norms(model, keep="noise")
    with pytest.raises(RuntimeError, match="cannot know which it was"), no_branch(model):
        model(tiny_images())
    with (
        use_branch(model, BRANCHES),
        pytest.raises(ValueError, match="a layer with adapters was read from outside"),
    ):
        adapters(model)[0].weight  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        adapters(model)[0].nothing  # noqa: B018


# --- training


@pytest.mark.parametrize("form", ["separate", "joint", "summed"])
def test_trained_for_a_few_steps_the_branches_part_and_clean_is_kept(form: str) -> None:
    model = standardized(add_auxiliary_adapters(tiny_vit()), mean=[0.5] * 3, std=[0.5] * 3).train()
    assert unused_branches(model) == [
        'branch "adversarial" does not differ from the clean one: no images went through it'
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for seed in range(3):
        optimizer.zero_grad()
        method = AdvProp(attack=ATTACK, form=form)
        context = Context(generator=seeded(seed))
        method.forward_backward(model, tiny_images(seed=seed), tiny_labels(seed=seed), context)
        optimizer.step()
    assert unused_branches(model) == []
    clean, adversarial = (output(model.eval(), name, tiny_images()) for name in BRANCHES)
    assert not torch.allclose(clean, adversarial)
    assert torch.equal(remove_auxiliary_norms(model)(tiny_images()), clean)


def test_clean_images_leave_adapters_without_gradient() -> None:
    model = add_auxiliary_adapters(tiny_vit()).train()
    nn.functional.cross_entropy(model(tiny_images()), tiny_labels()).backward()
    assert all(parameter.grad is None for parameter in branch_parameters(model)["adversarial"])


# --- runs


def configured(*settings: str) -> RunConfig:
    base = [
        "training.num_epochs=2",
        "data.num_train=60",
        "training.batch_size=20",
        "training.ema_decay=0.9",
        "model.name=vit_tiny_patch16_224",
        "model.mean=[0.3]",
        "model.std=[0.4]",
        'model.options={"patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 2}',
        "model.separate=adapter",
    ]
    return apply_overrides(digits(), [*base, *settings])


def test_a_run_with_adapters_is_trained_planned_and_exported(tmp_path: Path) -> None:
    config = configured("model.adapter_rank=3")
    train(config, tmp_path / "run", quiet=True)
    model = load_run(tmp_path / "run").model
    assert adapters(model)[0].branches["adversarial"].down.out_features == 3
    export(tmp_path / "run", tmp_path / "export")
    plain = load_export(tmp_path / "export").model
    images = torch.rand(4, 1, 8, 8, generator=seeded())
    assert not has_auxiliary_norms(plain)
    assert torch.equal(plain(images), output(model, "clean", images))
    assert not torch.equal(plain(images), output(model, "adversarial", images))
    for devices in (1, 2):
        costs = plan(config, devices=devices)["methods"]["advprop"]
        assert costs["parameters"]["with_branches"] > costs["parameters"]["plain"]
    with pytest.raises(ValueError, match="adapter_rank"):
        configured("model.adapter_rank=0")


# --- timm's families

ADAPTED_FAMILIES = ("convnext", "eva", "swin_transformer", "vision_transformer")


@pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if family.name in ADAPTED_FAMILIES],
    ids=lambda family: family.name,
)
@torch.no_grad()
def test_timms_families(family: Family) -> None:
    """eva uses the weights of some layers without calling them."""
    plain = family.build()
    model = add_auxiliary_adapters(copy.deepcopy(plain))
    images = family.images(seed=3)
    expected = plain(images)
    for name in BRANCHES:
        assert torch.equal(output(model, name, images), expected)
    move(model)
    assert torch.equal(output(model, "clean", images), expected)
    merged = remove_auxiliary_norms(copy.deepcopy(model), keep="adversarial")
    adversarial = output(model, "adversarial", images)
    torch.testing.assert_close(adversarial, merged(images), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(adversarial, expected, rtol=1e-3, atol=1e-3)
    model.load_state_dict(plain.state_dict())
    assert torch.equal(output(model, "adversarial", images), expected)


def test_a_pretrained_head_is_not_adapted() -> None:
    model: Tensor | nn.Module = timm.create_model("test_convnext")
    add_auxiliary_adapters(model)
    assert not isinstance(model.get_classifier(), AuxiliaryAdapter)
