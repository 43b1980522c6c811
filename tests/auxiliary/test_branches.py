"""Choosing a branch, owning parameters, and what a user can get wrong."""

import copy
import pickle

import pytest
import timm
import torch
from branch_nets import (
    branched,
    buffers,
    layers_of,
    move,
    output,
    same,
    small_net,
    snapshot,
    some_images,
)
from torch import nn

from advprop.auxiliary.branches import branch_names, use_branch
from advprop.auxiliary.gradients import branch_parameters
from advprop.auxiliary.route import has_auxiliary_norms
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms


class StoppedError(Exception):
    """Raised inside the block under test."""


# choosing a branch


def test_the_previous_branch_is_back_on_exit() -> None:
    model = branched(small_net()).eval()
    clean, adversarial = (output(model, name, some_images()) for name in branch_names(model))
    assert not torch.allclose(clean, adversarial, atol=1e-3)
    with torch.no_grad():
        with use_branch(model, "adversarial"):
            assert torch.equal(model(some_images()), adversarial)
        assert torch.equal(model(some_images()), clean)


def test_the_previous_branch_is_back_on_an_exception() -> None:
    model = branched(small_net()).eval()
    clean = output(model, "clean", some_images())
    with pytest.raises(StoppedError), use_branch(model, "adversarial"):
        raise StoppedError
    assert torch.equal(model(some_images()), clean)


def test_branches_nest() -> None:
    model = branched(small_net(), ("adversarial", "noise")).eval()
    clean, adversarial, noise = (output(model, name, some_images()) for name in branch_names(model))
    assert len({float(logits.sum()) for logits in (clean, adversarial, noise)}) == 3
    with torch.no_grad(), use_branch(model, "adversarial"):
        with use_branch(model, "noise"):
            with use_branch(model, "clean"):
                assert torch.equal(model(some_images()), clean)
            assert torch.equal(model(some_images()), noise)
        with pytest.raises(StoppedError), use_branch(model, ("clean", "noise")):
            raise StoppedError
        assert torch.equal(model(some_images()), adversarial)


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("branch", ["clean", "adversarial"])
def test_branch_and_mode_are_independent(branch: str, training: bool) -> None:
    model = branched(small_net())
    lone = remove_auxiliary_norms(copy.deepcopy(model), keep=branch).train(training)
    # mode first, branch inside; and the other way round
    first, second = copy.deepcopy(model), copy.deepcopy(model)
    with use_branch(first.train(training), branch):
        inside = first(some_images())
    with use_branch(second.train(not training), branch):
        second.train(training)
        outside = second(some_images())
    expected = lone(some_images())
    assert torch.equal(inside, expected)
    assert torch.equal(outside, expected)
    assert first.training == second.training == training
    for used in (first, second):
        assert same(buffers(remove_auxiliary_norms(used, keep=branch)), buffers(lone))


@pytest.mark.parametrize("trained", ["clean", "adversarial"])
def test_training_one_branch_leaves_the_other_alone(trained: str) -> None:
    model = branched(small_net()).train()
    other = "adversarial" if trained == "clean" else "clean"
    before = [snapshot(layer) for layer in layers_of(model, other)]
    count = int(layers_of(model, trained)[0].num_batches_tracked)
    with use_branch(model, trained):
        model(some_images()).square().sum().backward()
    groups = branch_parameters(model)
    assert all(parameter.grad is None for parameter in groups[other])
    assert all(parameter.grad is not None for parameter in groups[trained])
    assert all(parameter.grad.abs().max() > 0 for parameter in groups["shared"])
    assert all(
        same(snapshot(layer), old)
        for layer, old in zip(layers_of(model, other), before, strict=True)
    )
    assert int(layers_of(model, trained)[0].num_batches_tracked) == count + 1


def test_moving_an_auxiliary_branch_moves_only_its_outputs() -> None:
    model = branched(small_net(), ("adversarial", "noise")).eval()
    before = {name: output(model, name, some_images()) for name in branch_names(model)}
    for layer in layers_of(model, "noise"):
        move(layer, seed=20)
    after = {name: output(model, name, some_images()) for name in branch_names(model)}
    assert torch.equal(after["clean"], before["clean"])
    assert torch.equal(after["adversarial"], before["adversarial"])
    assert not torch.allclose(after["noise"], before["noise"], atol=1e-3)


# several branches in one batch


@pytest.mark.parametrize(
    "names", [("clean", "adversarial"), ("noise", "clean", "adversarial"), ("noise", "noise")]
)
def test_a_tuple_sends_equal_parts_through_its_branches(names: tuple[str, ...]) -> None:
    model = branched(small_net(), ("adversarial", "noise")).eval()
    images = some_images()
    parts = images.chunk(len(names))
    expected = [output(model, name, part) for name, part in zip(names, parts, strict=True)]
    torch.testing.assert_close(output(model, names, images), torch.cat(expected))


def test_a_tuple_in_train_mode_takes_each_parts_own_statistics() -> None:
    model = branched(nn.Sequential(nn.BatchNorm2d(3))).train()
    lone = copy.deepcopy(model)
    clean, adversarial = some_images(3), some_images(3, seed=2) * 4
    joint = output(model, ("clean", "adversarial"), torch.cat([clean, adversarial]))
    separate = [output(lone, "clean", clean), output(lone, "adversarial", adversarial)]
    torch.testing.assert_close(joint, torch.cat(separate))
    assert same(buffers(model), buffers(lone))


def test_a_batch_that_cannot_be_split_names_both_numbers() -> None:
    model = branched(small_net())
    with (
        use_branch(model, ("clean", "adversarial")),
        pytest.raises(ValueError, match="batch of 5 cannot be split over 2 branches"),
    ):
        model(some_images(5))


@pytest.mark.parametrize(
    ("names", "shares", "sizes"),
    [
        (("clean", "adversarial"), (4, 1), (8, 2)),
        (("clean", "adversarial"), [8, 2], (8, 2)),
        (("adversarial", "clean"), (1, 4), (2, 8)),
        (("noise", "clean", "adversarial"), (2, 5, 3), (2, 5, 3)),
        (("clean", "noise"), (1, 1), (5, 5)),
        (("clean", "noise"), None, (5, 5)),
    ],
)
def test_shares_send_unequal_parts_through_the_branches(
    names: tuple[str, ...], shares: list[int] | None, sizes: tuple[int, ...]
) -> None:
    model = branched(small_net(), ("adversarial", "noise")).eval()
    images = some_images(10)
    parts, first = [], 0
    for name, size in zip(names, sizes, strict=True):
        parts.append(output(model, name, images[first : first + size]))
        first += size
    with torch.no_grad(), use_branch(model, names, shares=shares):
        torch.testing.assert_close(model(images), torch.cat(parts))


class Windows(nn.Module):
    """Cuts images into four windows, which lie in dim 0 image by image, around `inner`."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        rows = images.unflatten(2, (2, -1)).unflatten(4, (2, -1))  # N C 2 h 2 w
        windows = rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        return self.inner(windows).unflatten(0, (len(images), 4)).mean(dim=1)


def test_shares_hold_for_windows_of_images() -> None:
    model = branched(Windows(small_net())).train()
    lone = copy.deepcopy(model)
    images = some_images(5)
    with torch.no_grad(), use_branch(model, ("clean", "adversarial"), shares=(4, 1)):
        joint = model(images)
    parts = [output(lone, "clean", images[:4]), output(lone, "adversarial", images[4:])]
    torch.testing.assert_close(joint, torch.cat(parts))
    assert buffers(model).keys() == buffers(lone).keys()
    for name, buffer in buffers(model).items():
        torch.testing.assert_close(buffer, buffers(lone)[name])


def test_shares_are_back_on_exit_and_on_an_exception_and_nest() -> None:
    model = branched(small_net()).eval()
    images, pair = some_images(10), ("clean", "adversarial")
    clean = output(model, "clean", images)
    with torch.no_grad(), use_branch(model, pair, shares=(4, 1)):
        outer = model(images)
        with use_branch(model, "clean"):
            assert torch.equal(model(images), clean)
        with use_branch(model, pair):  # equal parts again
            torch.testing.assert_close(model(images)[:5], clean[:5])
            assert not torch.allclose(model(images)[5:8], clean[5:8], atol=1e-3)
        with pytest.raises(StoppedError), use_branch(model, pair, shares=(1, 4)):
            raise StoppedError
        assert torch.equal(model(images), outer)
        copied = copy.deepcopy(model)
    assert torch.equal(output(model, "clean", images), clean)
    assert torch.equal(output(copied, "clean", images), clean)


def test_a_batch_that_shares_do_not_divide_is_refused() -> None:
    model = branched(small_net())
    for shares in ((4, 1), (8, 2)):
        with (
            use_branch(model, ("clean", "adversarial"), shares=shares),
            pytest.raises(
                ValueError,
                match=rf"batch of 6 cannot be split over 2 branches \(clean, adversarial\) as "
                rf"{shares[0]}:{shares[1]}: .* multiple of 5",
            ),
        ):
            model(some_images(6))


@pytest.mark.parametrize(
    ("branch", "shares"),
    [
        (("clean", "adversarial"), (4,)),
        (("clean", "adversarial"), (4, 1, 1)),
        (("clean", "adversarial"), (4, 0)),
        (("clean", "adversarial"), (5, -1)),
        (("clean", "adversarial"), (0.8, 0.2)),
        (("clean", "adversarial"), (True, True)),
        ("clean", (4, 1)),
    ],
)
def test_impossible_shares_are_refused(
    branch: str | tuple[str, ...], shares: tuple[int, ...]
) -> None:
    model = branched(small_net())
    with (
        pytest.raises(ValueError, match=r"shares .*: give a whole number of at least 1 for each"),
        use_branch(model, branch, shares=shares),
    ):
        pass
    assert model[1].route.active == "clean"


def test_a_tensor_read_from_a_layer_belongs_to_the_active_branch() -> None:
    model = branched(small_net())
    clean, adversarial = model[1].branches.values()
    assert model[1].weight is clean.weight
    with use_branch(model, "adversarial"):
        assert model[1].weight is adversarial.weight
        assert model[1].num_features == 6
    with use_branch(model, ("clean", "adversarial")):
        assert model[1].num_features == 6
        with pytest.raises(ValueError, match=r'"weight" .* split over 2 branches'):
            _ = model[1].weight
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = model[1].nothing


def test_torchs_fused_transformer_layer_takes_the_active_branch() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True).eval()
    model = branched(layer).eval()
    lone = remove_auxiliary_norms(copy.deepcopy(model), keep="adversarial")
    tokens = torch.rand(4, 3, 8)
    with torch.no_grad():
        torch.testing.assert_close(output(model, "adversarial", tokens), lone(tokens))
        assert not torch.allclose(model(tokens), lone(tokens), atol=1e-3)
        # the fused kernel takes one set of weights for the whole batch
        with pytest.raises(ValueError, match="set_fastpath_enabled"):
            output(model, ("clean", "adversarial"), tokens)


# what a user can get wrong


@pytest.mark.parametrize("branch", ["aux", ("clean", "aux")])
def test_an_unknown_branch_is_refused(branch: str | tuple[str, ...]) -> None:
    model = branched(small_net())
    with (
        pytest.raises(ValueError, match='branch "aux" unknown, this model has clean, adversarial'),
        use_branch(model, branch),
    ):
        pass
    with pytest.raises(ValueError, match='branch "aux" unknown, this model has clean, adversarial'):
        remove_auxiliary_norms(model, keep="aux")
    assert branch_names(model) == ("clean", "adversarial")


def test_no_branch_is_refused() -> None:
    with (
        pytest.raises(ValueError, match="no branch named: choose from clean, adversarial"),
        use_branch(branched(small_net()), ()),
    ):
        pass


@pytest.mark.parametrize(
    "call",
    [branch_names, branch_parameters, lambda model: use_branch(model, "clean").__enter__()],
    ids=["branch_names", "branch_parameters", "use_branch"],
)
def test_a_model_without_branches_is_refused(call) -> None:
    with pytest.raises(ValueError, match="no auxiliary branches: call add_auxiliary_norms"):
        call(small_net())
    with pytest.raises(ValueError, match="no auxiliary branches: nothing to remove"):
        remove_auxiliary_norms(small_net())


def test_a_model_converted_twice_is_refused_and_unharmed() -> None:
    model = branched(small_net())
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"branches already.*remove_auxiliary_norms first"):
        add_auxiliary_norms(model, ("noise",))
    assert same(snapshot(model), before)
    remove_auxiliary_norms(model)
    assert branch_names(add_auxiliary_norms(model, ("noise",))) == ("clean", "noise")


def test_a_model_without_normalisation_layers_is_refused() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    with pytest.raises(ValueError, match=r"no normalisation layer.*Conv2d x2.*is_norm=lambda"):
        add_auxiliary_norms(net)
    assert not has_auxiliary_norms(net)


@pytest.mark.parametrize("separate", ["statistics", "affine"])
def test_a_setting_without_effect_is_refused(separate: str) -> None:
    norm = nn.GroupNorm(1, 4) if separate == "statistics" else nn.BatchNorm2d(4, affine=False)
    with pytest.raises(ValueError, match=rf'separate="{separate}".*try separate="both"'):
        add_auxiliary_norms(nn.Sequential(nn.Conv2d(3, 4, 3), norm), separate=separate)


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="separate='weights': choose"):
        add_auxiliary_norms(small_net(), separate="weights")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "no auxiliary branch named"),
        (("clean",), "each once"),
        (("noise", "noise"), "each once"),
        (("two words",), "letters, digits and underscores"),
        (("a.b",), "letters, digits and underscores"),
        (("",), "letters, digits and underscores"),
        (("shared",), "has a meaning already"),
        (("keys",), "has a meaning already"),
        (("training",), "has a meaning already"),
    ],
)
def test_unusable_names_are_refused(names: tuple[str, ...], message: str) -> None:
    net = small_net()
    with pytest.raises(ValueError, match=message):
        add_auxiliary_norms(net, names)
    assert not has_auxiliary_norms(net)


def test_layers_without_sizes_are_refused() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.LazyBatchNorm2d())
    with pytest.raises(ValueError, match="run one batch through it first"):
        add_auxiliary_norms(net)
    assert not has_auxiliary_norms(net)
    net(some_images())
    assert has_auxiliary_norms(add_auxiliary_norms(net))


def test_models_put_together_from_converted_parts_are_refused() -> None:
    part = branched(small_net()[:3])
    for other in (copy.deepcopy(part), branched(small_net()[:3])):
        with pytest.raises(ValueError, match=r'"1\.1" got its branches in another call'):
            use_branch(nn.Sequential(part, other), "adversarial").__enter__()
    twice = nn.Sequential(nn.Sequential(part, nn.Conv2d(6, 3, 1)), part)
    assert not torch.equal(
        output(twice, "adversarial", some_images()), output(twice, "clean", some_images())
    )


# which layers, and whose tensors


class Scaling(nn.Module):
    """A layer of one's own that normalises in its way."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(6, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.gain * images / images.abs().amax(dim=(1, 2, 3), keepdim=True)


def test_further_layers_are_named_by_is_norm() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), Scaling())
    with pytest.raises(ValueError, match="Scaling x1"):
        add_auxiliary_norms(net)
    plain = copy.deepcopy(net)
    model = branched_by(net, lambda layer: isinstance(layer, Scaling))
    assert not torch.allclose(
        output(model, "adversarial", some_images()), output(model, "clean", some_images())
    )
    assert torch.equal(output(model, "clean", some_images()), plain(some_images()))
    assert same(snapshot(remove_auxiliary_norms(model)), snapshot(plain))


def branched_by(net: nn.Module, is_norm) -> nn.Module:
    model = add_auxiliary_norms(net, is_norm=is_norm)
    for layer in layers_of(model, "adversarial"):
        move(layer, seed=5)
    return model


def test_is_norm_adds_to_the_known_layers() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), Scaling())
    model = branched_by(net, lambda layer: isinstance(layer, Scaling))
    assert [type(layer) for layer in layers_of(model, "clean")] == [nn.BatchNorm2d, Scaling]


@pytest.mark.parametrize(
    ("norm", "shape"),
    [
        (nn.BatchNorm1d(6), (4, 6)),
        (nn.BatchNorm2d(6), (4, 6, 3, 3)),
        (nn.BatchNorm3d(6), (4, 6, 2, 3, 3)),
        (nn.SyncBatchNorm(6), (4, 6, 3, 3)),
        (nn.InstanceNorm1d(6, affine=True), (4, 6, 5)),
        (nn.InstanceNorm2d(6, affine=True, track_running_stats=True), (4, 6, 3, 3)),
        (nn.InstanceNorm3d(6, affine=True), (4, 6, 2, 3, 3)),
        (nn.GroupNorm(2, 6), (4, 6, 3, 3)),
        (nn.LayerNorm(6), (4, 5, 6)),
        (nn.RMSNorm(6), (4, 5, 6)),
        (timm.layers.GroupNorm1(6), (4, 6, 3, 3)),
        (timm.layers.LayerNorm2d(6), (4, 6, 3, 3)),
        (timm.layers.RmsNorm(6), (4, 5, 6)),
        (timm.layers.RmsNorm2d(6), (4, 6, 3, 3)),
        (timm.layers.SimpleNorm2d(6), (4, 6, 3, 3)),
        (timm.layers.BatchNormAct2d(6), (4, 6, 3, 3)),
        (timm.layers.GroupNormAct(6, num_groups=2), (4, 6, 3, 3)),
        (timm.layers.EvoNorm2dB0(6), (4, 6, 3, 3)),
        (timm.layers.EvoNorm2dS0(6, groups=2), (4, 6, 3, 3)),
        (timm.layers.FilterResponseNormTlu2d(6), (4, 6, 3, 3)),
        (timm.layers.grn.GlobalResponseNorm(6), (4, 3, 3, 6)),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_a_bare_layer_of_every_kind(norm: nn.Module, shape: tuple, training: bool) -> None:
    norm = copy.deepcopy(norm).train(training)
    move(norm, seed=4)
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    model = add_auxiliary_norms(copy.deepcopy(norm))
    expected = copy.deepcopy(norm)(inputs)
    for branch in branch_names(model):
        assert torch.equal(output(copy.deepcopy(model), branch, inputs), expected)
    move(model.branches["adversarial"], seed=6)
    assert not torch.allclose(output(model, "adversarial", inputs), expected, atol=1e-3)
    joint = output(model.eval(), ("adversarial", "clean"), inputs)
    parts = inputs.chunk(2)
    torch.testing.assert_close(
        joint, torch.cat([output(model, "adversarial", parts[0]), output(model, "clean", parts[1])])
    )
    removed = remove_auxiliary_norms(model)
    assert type(removed) is type(norm)


def test_parameters_are_told_apart_once_each() -> None:
    model = add_auxiliary_norms(small_net(), ("adversarial", "noise"))
    groups = branch_parameters(model)
    assert list(groups) == ["shared", "clean", "adversarial", "noise"]
    for name in branch_names(model):
        own = [tensor for layer in layers_of(model, name) for tensor in layer.parameters()]
        assert [id(p) for p in groups[name]] == [id(p) for p in own]
        assert len(own) == 4
    everything = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(everything) == sorted(id(parameter) for parameter in model.parameters())
    assert len(set(everything)) == len(everything)
    assert [id(p) for p in groups["shared"]] == [
        id(p) for layer in (model[0], model[3], model[9]) for p in layer.parameters()
    ]


def ownership(model: nn.Module) -> tuple[bool, bool]:
    """Do the branches of the BatchNorm and GroupNorm layers share parameters, and statistics?"""
    clean, other = layers_of(model, "clean"), layers_of(model, "adversarial")
    parameters = {
        a is b
        for first, second in zip(clean, other, strict=True)
        for a, b in zip(first.parameters(), second.parameters(), strict=True)
    }
    statistics = {a is b for a, b in zip(clean[0].buffers(), other[0].buffers(), strict=True)}
    assert len(parameters) == len(statistics) == 1
    return parameters.pop(), statistics.pop()


SHARED = {"both": (False, False), "affine": (False, True), "statistics": (True, False)}


def batch_norm_net(separate: str) -> nn.Module:
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.BatchNorm2d(6))
    return branched(net, separate=separate)


@pytest.mark.parametrize("separate", SHARED)
@pytest.mark.parametrize(
    "change",
    [
        lambda model: model,
        lambda model: model.half(),
        lambda model: model.to(torch.float64),
        lambda model: model.to(memory_format=torch.channels_last),
        copy.deepcopy,
        lambda model: copy.deepcopy(copy.deepcopy(model).double()),
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: loaded(model, assign=False),
        lambda model: loaded(model, assign=True),
        nn.SyncBatchNorm.convert_sync_batchnorm,
        timm.layers.convert_sync_batchnorm,
    ],
    ids=[
        *["nothing", "half", "to", "channels_last", "deepcopy", "deepcopies", "pickle"],
        *["load", "assign", "torch_sync", "timm_sync"],
    ],
)
def test_ownership_survives(separate: str, change) -> None:
    model = change(batch_norm_net(separate))
    assert ownership(model) == SHARED[separate]
    assert branch_names(model) == ("clean", "adversarial")
    groups = branch_parameters(model)
    owned = 0 if separate == "statistics" else 4
    assert [len(groups[name]) for name in groups] == [2 + 4 - owned, owned, owned]


def loaded(model: nn.Module, *, assign: bool) -> nn.Module:
    fresh = batch_norm_net(model[1].separate)
    move(fresh, seed=21)
    assert not same(snapshot(fresh), snapshot(model))
    fresh.load_state_dict(snapshot(model), assign=assign)
    assert same(snapshot(fresh), snapshot(model))
    return fresh


def test_separate_affine_trains_one_set_of_statistics() -> None:
    model = batch_norm_net("affine").train()
    clean, adversarial = layers_of(model, "clean")[0], layers_of(model, "adversarial")[0]
    before, count = clean.running_mean.clone(), int(clean.num_batches_tracked)
    with use_branch(model, "adversarial"):
        model(some_images()).square().sum().backward()
    assert not torch.equal(clean.running_mean, before)
    assert int(clean.num_batches_tracked) == count + 1
    assert adversarial.weight.grad is not None
    assert clean.weight.grad is None


def test_separate_affine_shares_the_statistics_of_the_whole_batch() -> None:
    torch.manual_seed(0)
    norm = add_auxiliary_norms(nn.BatchNorm2d(3, momentum=0.25), separate="affine").train()
    clean, adversarial = layers_of(norm, "clean")[0], layers_of(norm, "adversarial")[0]
    with torch.no_grad():
        adversarial.weight.fill_(3.0)
        adversarial.bias.fill_(1.0)
    images = torch.cat([torch.randn(4, 3, 5, 5), 2 + torch.randn(4, 3, 5, 5)])
    with use_branch(norm, ("clean", "adversarial")):
        found = norm(images)
    normalised = nn.functional.batch_norm(images, None, None, training=True)
    torch.testing.assert_close(found[:4], normalised[:4])
    torch.testing.assert_close(found[4:], 3 * normalised[4:] + 1)
    torch.testing.assert_close(clean.running_mean, 0.25 * images.mean((0, 2, 3)))
    assert clean.running_mean is adversarial.running_mean
    assert int(clean.num_batches_tracked) == 1


def test_separate_statistics_trains_one_set_of_parameters() -> None:
    model = batch_norm_net("statistics").train()
    clean, adversarial = layers_of(model, "clean")[0], layers_of(model, "adversarial")[0]
    before = buffers(clean)
    with use_branch(model, "adversarial"):
        model(some_images()).square().sum().backward()
    assert same(buffers(clean), before)
    assert int(adversarial.num_batches_tracked) != int(clean.num_batches_tracked)
    assert clean.weight.grad is not None


def test_layers_without_the_tensors_to_separate_stay_as_they_are() -> None:
    model = add_auxiliary_norms(small_net(), separate="statistics")
    assert [type(layer) for layer in layers_of(model, "clean")] == [nn.BatchNorm2d]
    assert type(model[4]) is nn.GroupNorm


@pytest.mark.parametrize("separate", SHARED)
def test_a_checkpoint_names_no_tensor_twice(separate: str) -> None:
    model = batch_norm_net(separate)
    tensors = [tensor.data_ptr() for tensor in model.state_dict().values()]
    assert len(set(tensors)) == len(tensors)
