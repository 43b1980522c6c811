"""Class tokens as branches: the rest of a vision transformer is shared."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from branch_nets import COPIES, check_twin, output, same, snapshot
from test_conversions import CountingBackend
from timm.utils import ModelEmaV3
from timm_families import FAMILIES, Family
from tiny import gradients, same_tensors, seeded, tiny_images, tiny_labels, tiny_net, tiny_vit
from torch import Tensor, nn

from advprop.attacks.pgd import PGD
from advprop.attacks.threat_models import Linf
from advprop.auxiliary.branches import branch_names, splits_batches, use_branch
from advprop.auxiliary.gradients import branch_parameters
from advprop.auxiliary.route import has_auxiliary_norms
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms
from advprop.auxiliary.token import AuxiliaryToken, add_auxiliary_tokens
from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.cost.planning import plan
from advprop.exports.export import load_export
from advprop.methods.advprop import AdvProp
from advprop.methods.pyramid import Pyramid
from advprop.methods.step import Context
from advprop.models.standardize import standardized
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.runs.exporting import export
from advprop.runs.folder import load_run
from advprop.runs.trainer import unused_branches
from advprop.training.optim import build_optimizer, freeze_layers
from advprop.training.settings import TrainingSettings

BRANCHES = ("clean", "adversarial")
ATTACK = PGD(threat_model=Linf(8 / 255), num_steps=1, step_size=6 / 255)


@torch.no_grad()
def move(model: nn.Module, branch: str = "adversarial") -> nn.Module:
    """Change one branch's token, otherwise in each place: a LayerNorm would undo a constant."""
    for layer in model.modules():
        if isinstance(layer, AuxiliaryToken):
            token = layer.branches[branch].token
            token.add_(torch.linspace(0.5, -0.5, len(token)))
    return model


def apart() -> nn.Module:
    """A small transformer whose tokens no longer agree."""
    return move(add_auxiliary_tokens(tiny_vit())).eval()


# --- adding and removing


def test_outputs_are_those_of_before_in_every_branch() -> None:
    plain = tiny_vit().eval()
    model = add_auxiliary_tokens(copy.deepcopy(plain), ("adversarial", "noise")).eval()
    assert branch_names(model) == (*BRANCHES, "noise")
    for name in branch_names(model):
        assert torch.equal(output(model, name, tiny_images()), plain(tiny_images()))
    move(model)
    for name in (*BRANCHES, "noise"):
        is_equal = torch.equal(output(model, name, tiny_images()), plain(tiny_images()))
        assert is_equal == (name != "adversarial")


@pytest.mark.parametrize("keep", BRANCHES)
def test_removed_without_a_trace(keep: str) -> None:
    plain, model = tiny_vit().eval(), apart()
    expected = output(model, keep, tiny_images())
    assert remove_auxiliary_norms(model, keep=keep) is model
    assert not has_auxiliary_norms(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in model.named_modules()] == [
        name for name, _ in plain.named_modules()
    ]
    assert isinstance(model.cls_token, nn.Parameter)
    assert model.cls_token.shape == (1, 1, 16)
    assert not model._load_state_dict_pre_hooks
    assert torch.equal(model(tiny_images()), expected)
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(tiny_images()), expected)
    assert branch_names(add_auxiliary_tokens(model)) == BRANCHES


def test_everything_but_the_token_is_shared() -> None:
    model = add_auxiliary_tokens(tiny_vit())
    groups = branch_parameters(model)
    assert {name: len(group) for name, group in groups.items() if name != "shared"} == {
        "clean": 1,
        "adversarial": 1,
    }
    assert sum(len(group) for group in groups.values()) == len(list(model.parameters()))
    extra = sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in tiny_vit().parameters()
    )
    assert extra == 16


def test_the_branch_is_chosen_in_both_modes_and_nests() -> None:
    model = apart()
    clean, adversarial = (output(model, name, tiny_images()) for name in BRANCHES)
    with torch.no_grad(), use_branch(model, "adversarial"):
        with use_branch(model, "clean"):
            assert torch.equal(model(tiny_images()), clean)
        assert torch.equal(model.train()(tiny_images()), adversarial)
        assert torch.equal(model.forward_features(tiny_images())[:, 0], features(model))
    assert torch.equal(model(tiny_images()), clean)


def features(model: nn.Module) -> Tensor:
    with use_branch(model, "adversarial"):
        return model.forward_head(model.forward_features(tiny_images()), pre_logits=True)


def test_it_passes_for_a_token() -> None:
    model = apart()
    token = model.cls_token
    assert token is not None
    assert token.shape == (1, 1, 16)
    assert token.dtype == torch.float32
    with use_branch(model, "adversarial"):
        assert torch.equal(token.expand(3, -1, -1)[2, 0], token.branches["adversarial"].token)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        token.nothing  # noqa: B018


# --- what else is done to a model


@pytest.mark.parametrize("change", COPIES.values(), ids=COPIES.keys())
def test_copies_are_alike_and_switched_on_their_own(
    change: Callable[[nn.Module, nn.Module], nn.Module],
) -> None:
    model = apart()
    twin = change(model, add_auxiliary_tokens(tiny_vit(seed=5)).eval())
    check_twin(model, twin)
    move(twin)
    assert not torch.equal(
        output(twin, "adversarial", tiny_images()), output(model, "adversarial", tiny_images())
    )
    # a plain checkpoint reaches the copy's own tokens
    twin.load_state_dict(tiny_vit().state_dict())
    assert torch.equal(output(twin, "adversarial", tiny_images()), tiny_vit().eval()(tiny_images()))


@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["bare", "standardised"])
def test_a_plain_checkpoint_loads_into_every_branch(assign: bool, wrapped: bool) -> None:
    plain, model = tiny_vit(seed=3).eval(), apart()
    if wrapped:
        plain, model = (
            standardized(net, mean=[0.4] * 3, std=[0.2] * 3).eval() for net in (plain, model)
        )
    checkpoint = snapshot(plain)
    model.load_state_dict(checkpoint, assign=assign)
    assert list(checkpoint) == list(plain.state_dict())
    for name in BRANCHES:
        assert torch.equal(output(model, name, tiny_images()), plain(tiny_images()))
    move(model)  # and they are free to part
    assert torch.equal(output(model, "clean", tiny_images()), plain(tiny_images()))
    assert not torch.equal(output(model, "adversarial", tiny_images()), plain(tiny_images()))


def test_a_checkpoint_without_a_token_is_refused() -> None:
    checkpoint = snapshot(tiny_vit())
    del checkpoint["cls_token"]
    with pytest.raises(RuntimeError, match=r"Missing key.*cls_token\.branches\.adversarial"):
        apart().load_state_dict(checkpoint)
    checkpoint["cls_token"] = torch.zeros(1, 1, 8)
    with pytest.raises(RuntimeError, match=r"size mismatch for cls_token\.branches\.clean"):
        apart().load_state_dict(checkpoint)


def test_an_average_takes_each_token_once() -> None:
    model = apart()
    average = ModelEmaV3(model, decay=0.75)
    before = snapshot(model)
    move(model)
    average.update(model)
    name = "cls_token.branches.adversarial.token"
    found = snapshot(average.module)
    exact = 0.75 * before[name] + 0.25 * snapshot(model)[name]
    assert not torch.equal(before[name], exact)
    torch.testing.assert_close(found[name], exact)
    assert same(found, {**before, name: found[name]})


@pytest.mark.parametrize("layer_decay", [None, 0.5])
def test_no_token_is_decayed_and_all_belong_to_the_stem(layer_decay: float | None) -> None:
    settings = TrainingSettings(
        num_epochs=1, batch_size=4, optimizer="adamw", weight_decay=0.1, layer_decay=layer_decay
    )
    model = standardized(add_auxiliary_tokens(tiny_vit()), mean=[0.5] * 3, std=[0.5] * 3)
    groups = {
        parameter: (group["weight_decay"], group.get("lr_scale"))
        for group in build_optimizer(model, settings).param_groups
        for parameter in group["params"]
    }
    assert set(groups) == set(model.parameters())
    plain = tiny_vit()
    named = {
        parameter: (group["weight_decay"], group.get("lr_scale"))
        for group in build_optimizer(plain, settings).param_groups
        for parameter in group["params"]
    }
    for branch in BRANCHES:
        (token,) = branch_parameters(model)[branch]
        assert groups[token] == named[plain.cls_token]
        assert groups[token][0] == 0
    assert {decay for decay, _ in groups.values()} == {0.0, 0.1}


def test_tokens_freeze_with_the_stem() -> None:
    model = add_auxiliary_tokens(tiny_vit())
    freeze_layers(model, 1)
    for branch in BRANCHES:
        assert not any(parameter.requires_grad for parameter in branch_parameters(model)[branch])
    assert not remove_auxiliary_norms(model).cls_token.requires_grad


def test_half_precision_and_autocast() -> None:
    plain = tiny_vit().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(
            output(add_auxiliary_tokens(tiny_vit()).eval(), "adversarial", tiny_images()),
            plain(tiny_images()),
        )
    half = add_auxiliary_tokens(tiny_vit()).eval().to(torch.bfloat16)
    images = tiny_images().to(torch.bfloat16)
    assert torch.equal(output(half, "adversarial", images), plain.to(torch.bfloat16)(images))


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


def test_a_batch_has_one_token() -> None:
    model = apart()
    assert not splits_batches(model)
    assert splits_batches(add_auxiliary_norms(tiny_vit()))
    message = r"VisionTransformer has a class token for each branch.*use one branch at a time"
    with pytest.raises(ValueError, match=message):
        use_branch(model, BRANCHES).__enter__()
    joint = AdvProp(attack=ATTACK, form="joint")
    with pytest.raises(ValueError, match=message):
        joint.forward_backward(model.train(), tiny_images(), tiny_labels())


def averaged_vit() -> nn.Module:
    return timm.create_model("test_vit", class_token=False, global_pool="avg")


@pytest.mark.parametrize(
    "build",
    [tiny_net, lambda: timm.create_model("test_convnext"), averaged_vit],
    ids=["convolutions", "convnext", "vit"],
)
def test_models_without_a_class_token(build: Callable[[], nn.Module]) -> None:
    model = build()
    with pytest.raises(ValueError, match=r"no class token \(cls_token\).*separate=\"affine\""):
        add_auxiliary_tokens(model)


def test_what_else_is_refused() -> None:
    model = apart()
    for again in (add_auxiliary_tokens, add_auxiliary_norms):
        with pytest.raises(ValueError, match="remove_auxiliary_norms first"):
            again(model)
    with pytest.raises(ValueError, match="remove_auxiliary_norms first"):
        add_auxiliary_tokens(add_auxiliary_norms(tiny_vit()))
    with pytest.raises(ValueError, match='branch "noise" unknown, this model has clean, adv'):
        remove_auxiliary_norms(model, keep="noise")
    for names in ((), ("clean",), ("two words",), ("keys",)):
        with pytest.raises(ValueError, match=r"branch name|branch named"):
            add_auxiliary_tokens(tiny_vit(), names)
    assert branch_names(model) == BRANCHES


# --- training


@pytest.mark.parametrize("form", ["separate", "summed"])
def test_each_kind_of_image_reaches_its_own_token(form: str) -> None:
    model = add_auxiliary_tokens(tiny_vit()).train()
    context = Context(generator=seeded())
    method = AdvProp(attack=ATTACK, form=form)
    method.forward_backward(model, tiny_images(), tiny_labels(), context)
    lone = tiny_vit().train()
    nn.functional.cross_entropy(lone(tiny_images()), tiny_labels()).backward()
    (clean,), (adversarial,) = (branch_parameters(model)[branch] for branch in BRANCHES)
    torch.testing.assert_close(clean.grad, lone.cls_token.grad.flatten())
    assert adversarial.grad.abs().max() > 1e-6
    assert not torch.allclose(adversarial.grad, clean.grad)


def test_trained_for_a_few_steps_the_tokens_part_and_clean_is_kept() -> None:
    model = standardized(add_auxiliary_tokens(tiny_vit()), mean=[0.5] * 3, std=[0.5] * 3).train()
    assert unused_branches(model) == [
        'branch "adversarial" does not differ from the clean one: no images went through it'
    ]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for seed in range(4):
        optimizer.zero_grad()
        method = AdvProp(attack=ATTACK, form="separate", matched_masks=True)
        method.forward_backward(model, tiny_images(seed=seed), tiny_labels(seed=seed))
        optimizer.step()
    assert unused_branches(model) == []
    clean, adversarial = (output(model.eval(), name, tiny_images()) for name in BRANCHES)
    assert not torch.allclose(clean, adversarial)
    assert torch.equal(remove_auxiliary_norms(model)(tiny_images()), clean)


def test_activation_checkpointing_needs_no_token_again() -> None:
    found = []
    for checkpointing in (False, True):
        model = add_auxiliary_tokens(tiny_vit(drop=0.3)).train()
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(3)
        method = Pyramid(attack=ATTACK, auxiliary_branch=True, form="summed")
        method.forward_backward(model, tiny_images(), tiny_labels(), Context(generator=seeded()))
        found.append(gradients(model))
    assert same_tensors(*found)


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
        "model.separate=token",
    ]
    return apply_overrides(digits(), [*base, *settings])


def test_a_run_with_tokens_is_trained_planned_and_exported(tmp_path: Path) -> None:
    config = configured()
    train(config, tmp_path / "run", quiet=True)
    model = load_run(tmp_path / "run").model
    assert isinstance(model.model.cls_token, AuxiliaryToken)
    assert branch_names(model) == BRANCHES
    export(tmp_path / "run", tmp_path / "export")
    plain = load_export(tmp_path / "export").model
    images = torch.rand(4, 1, 8, 8, generator=seeded())
    assert not has_auxiliary_norms(plain)
    assert torch.equal(plain(images), output(model, "clean", images))
    assert not torch.equal(plain(images), output(model, "adversarial", images))
    for devices in (1, 2):
        costs = plan(config, devices=devices)["methods"]["advprop"]
        assert costs["passes_per_image"] == config.method.build().passes_per_image


def test_a_run_without_a_class_token_is_refused(tmp_path: Path) -> None:
    config = apply_overrides(digits(), ["model.separate=token"])
    with pytest.raises(ValueError, match=r"no class token.*model\.separate=affine for a run"):
        train(config, tmp_path / "run", quiet=True)


# --- timm's families

TOKEN_FAMILIES = (
    *("beit", "cait", "convit", "deit", "eva", "pit", "tnt", "vision_transformer"),
    *("vision_transformer_hybrid", "volo", "xcit"),
)
"""Those whose smallest model has one."""


@pytest.mark.parametrize(
    "family",
    [family for family in FAMILIES if family.name in TOKEN_FAMILIES],
    ids=lambda family: family.name,
)
@torch.no_grad()
def test_timms_families_with_a_class_token(family: Family) -> None:
    plain = family.build()
    model = add_auxiliary_tokens(copy.deepcopy(plain))
    images = family.images(seed=3)
    expected = plain(images)
    for name in BRANCHES:
        assert torch.equal(output(model, name, images), expected)
    move(model)
    assert torch.equal(output(model, "clean", images), expected)
    adversarial = output(model, "adversarial", images)
    # little where tokens are averaged, but far above rounding
    assert (adversarial - expected).abs().max() > 3e-5 * expected.abs().max()
    model.load_state_dict(plain.state_dict())
    assert torch.equal(output(model, "adversarial", images), expected)
    remove_auxiliary_norms(model)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.equal(model(images), expected)
