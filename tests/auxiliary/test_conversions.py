"""Branches under what else is done to a model: copies, compilers, recomputation, other layouts."""

import copy
import io

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
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from advprop.auxiliary.branches import attack_mode, branch_names, use_branch
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms

BRANCHES = ("clean", "adversarial")

# checkpoints


def assert_outputs(model: nn.Module, expected: dict[str, Tensor]) -> None:
    for name, logits in expected.items():
        assert torch.equal(output(model, name, some_images()), logits), name


def outputs(model: nn.Module) -> dict[str, Tensor]:
    """Of each branch, which are not the same."""
    found = {name: output(model, name, some_images()) for name in branch_names(model)}
    clean, adversarial = found.values()
    assert not torch.allclose(clean, adversarial, atol=1e-3)
    return found


@pytest.mark.parametrize("assign", [False, True], ids=["copy", "assign"])
@pytest.mark.parametrize("separate", ["both", "affine", "statistics"])
def test_a_plain_checkpoint_loads_into_every_branch(separate: str, assign: bool) -> None:
    plain = small_net().eval()
    for layer in (plain[1], plain[4]):
        move(layer, seed=30)
    model = branched(small_net(), separate=separate).eval()
    checkpoint = snapshot(plain)
    model.load_state_dict(checkpoint, assign=assign)
    assert list(checkpoint) == list(plain.state_dict())  # the caller's dictionary is left alone
    expected = plain(some_images())
    assert_outputs(model, dict.fromkeys(BRANCHES, expected))
    # and the branches are free to part
    with torch.no_grad():
        for layer in layers_of(model, "adversarial"):
            own = layer.weight if separate != "statistics" else layer.running_mean
            own.add_(1)
    if separate == "statistics":
        assert_outputs(model, {"clean": expected})
    assert not torch.allclose(output(model, "adversarial", some_images()), expected, atol=1e-3)
    assert_outputs(model, {"clean": expected})


def test_a_plain_checkpoint_that_lacks_a_tensor_is_refused() -> None:
    checkpoint = snapshot(small_net())
    del checkpoint["1.weight"]
    with pytest.raises(RuntimeError, match=r"Missing key.*1\.branches\.adversarial\.weight"):
        branched(small_net()).load_state_dict(checkpoint)
    with pytest.raises(RuntimeError, match=r"Missing key.*branches\.noise\.weight"):
        branched(small_net(), ("noise",)).load_state_dict(snapshot(branched(small_net())))


@pytest.mark.parametrize("separate", ["both", "affine", "statistics"])
def test_a_saved_file_loads_into_a_converted_model(separate: str) -> None:
    model = branched(small_net(), separate=separate).eval()
    expected = outputs(model)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    fresh = add_auxiliary_norms(small_net(), separate=separate).eval()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert_outputs(fresh, expected)


@pytest.mark.parametrize("keep", BRANCHES)
def test_what_is_kept_loads_into_a_plain_model(keep: str) -> None:
    model = branched(small_net()).eval()
    expected = outputs(model)[keep]
    plain = small_net().eval()
    plain.load_state_dict(remove_auxiliary_norms(model, keep=keep).state_dict())
    assert torch.equal(plain(some_images()), expected)


# copies


def test_copies_are_switched_on_their_own() -> None:
    model = branched(small_net()).eval()
    expected = outputs(model)
    with use_branch(model, "adversarial"):
        twin = copy.deepcopy(model)
        with torch.no_grad():
            assert torch.equal(twin(some_images()), expected["clean"])
    assert_outputs(twin, expected)
    for layer in layers_of(twin, "adversarial"):
        move(layer, seed=7)
    assert_outputs(model, expected)


@pytest.mark.parametrize("foreach", [True, False], ids=["foreach", "loop"])
@pytest.mark.parametrize("separate", ["both", "affine", "statistics"])
def test_an_average_takes_each_tensor_once(separate: str, foreach: bool) -> None:
    model = branched(nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)), separate=separate)
    average = ModelEmaV3(model, decay=0.75, foreach=foreach)
    before = snapshot(model)
    move(model, seed=8)
    after = snapshot(model)
    average.update(model)
    found = snapshot(average.module)
    assert found.keys() == before.keys()
    for name, tensor in found.items():
        exact = 0.75 * before[name] + 0.25 * after[name]
        assert not torch.equal(before[name], after[name])
        torch.testing.assert_close(tensor, exact if tensor.is_floating_point() else after[name])
    outputs(average.module)


# torch.compile


class CountingBackend:
    """Runs what torch.compile captured as it stands, and counts how often it is asked to."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, captured: torch.fx.GraphModule, _inputs: list[Tensor]):
        self.graphs += 1
        return captured.forward


@pytest.fixture
def backend():
    torch.compiler.reset()
    yield CountingBackend()
    torch.compiler.reset()


def test_each_branch_and_mode_compiles_once(backend: CountingBackend) -> None:
    eager = branched(small_net())
    model = copy.deepcopy(eager)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    routes = (*BRANCHES, BRANCHES)
    for _ in range(2):
        for training in (True, False):
            for branch in routes:
                with use_branch(eager.train(training), branch), use_branch(compiled, branch):
                    compiled.train(training)
                    torch.testing.assert_close(compiled(some_images()), eager(some_images()))
                assert same(buffers(model), buffers(eager))
    assert backend.graphs == len(routes) * 2


def test_an_attack_compiles_once_a_branch(backend: CountingBackend) -> None:
    eager = branched(small_net()).train()
    model = copy.deepcopy(eager)
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    before = buffers(model)
    for _ in range(3):
        for branch in BRANCHES:
            gradients = []
            for net in (eager, compiled):
                images = some_images().requires_grad_()
                with attack_mode(net), use_branch(net, branch):
                    loss = net(images).square().sum()
                    gradients.append(torch.autograd.grad(loss, images)[0])
            torch.testing.assert_close(*gradients)
    assert backend.graphs == len(BRANCHES)
    assert same(buffers(model), before)


def test_layers_compiled_in_place_switch_too(backend: CountingBackend) -> None:
    model = branched(small_net()).eval()
    expected = outputs(model)
    model.compile(backend=backend)
    assert_outputs(model, expected)
    assert backend.graphs == len(BRANCHES)


# activation checkpointing


class Checkpointed(nn.Module):
    """A net whose middle part is computed again in the backward pass."""

    def __init__(self, net: nn.Sequential, *, use_reentrant: bool = False) -> None:
        super().__init__()
        self.net = net
        self.use_reentrant = use_reentrant

    def forward(self, images: Tensor) -> Tensor:
        features = self.net[0](images)
        features = checkpoint(self.net[1:6], features, use_reentrant=self.use_reentrant)
        return self.net[6:](features)


def gradients_after(
    model: nn.Module, branch: str | tuple[str, ...], *, training: bool = True
) -> dict[str, Tensor | None]:
    model.train(training)
    with use_branch(model, branch):
        model(some_images()).square().sum().backward()
    return {
        name.removeprefix("net."): parameter.grad for name, parameter in model.named_parameters()
    }


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("branch", [*BRANCHES, BRANCHES], ids=str)
@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(6), BatchNormAct2d(6), timm.layers.EvoNorm2dB0(6)], ids=type
)
def test_recomputation_changes_nothing(
    norm: nn.Module, branch: str | tuple[str, ...], training: bool
) -> None:
    net = small_net()
    net[1] = copy.deepcopy(norm)
    model = branched(net)
    recomputed = Checkpointed(copy.deepcopy(model))
    before = buffers(model)
    expected = gradients_after(model, branch, training=training)
    found = gradients_after(recomputed, branch, training=training)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        if gradient is None:
            assert found[name] is None, name
        else:
            assert torch.equal(found[name], gradient), name
    assert same(buffers(recomputed.net), buffers(model))
    assert same(buffers(model), before) is not training


def test_an_attack_through_recomputed_layers() -> None:
    model = branched(small_net()).train()
    recomputed = Checkpointed(copy.deepcopy(model))
    before = buffers(model)
    gradients = []
    for net in (model, recomputed):
        images = some_images().requires_grad_()
        with attack_mode(net), use_branch(net, "adversarial"):
            gradients.append(torch.autograd.grad(net(images).square().sum(), images)[0])
    assert torch.equal(*gradients)
    assert same(buffers(recomputed.net), before)


def test_the_reentrant_form_is_refused() -> None:
    model = Checkpointed(branched(small_net()), use_reentrant=True).train()
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        gradients_after(model, "adversarial")


def test_timms_own_checkpointing() -> None:
    torch.manual_seed(0)
    net = timm.create_model("test_resnet", num_classes=4)
    model = branched(net)
    recomputed = copy.deepcopy(model)
    recomputed.set_grad_checkpointing()
    expected = gradients_after(model, "adversarial")
    found = gradients_after(recomputed, "adversarial")
    for name, gradient in expected.items():
        assert (gradient is None) == (found[name] is None)
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient)
    assert same(buffers(recomputed), buffers(model))


# layouts and types


def test_channels_last_is_kept() -> None:
    model = branched(small_net()).eval()
    expected = outputs(model)
    model = model.to(memory_format=torch.channels_last)
    images = some_images().contiguous(memory_format=torch.channels_last)
    for branch in (*BRANCHES, BRANCHES):
        with use_branch(model, branch), torch.no_grad():
            features = model[1](model[0](images))
            assert features.is_contiguous(memory_format=torch.channels_last)
    for name, logits in expected.items():
        torch.testing.assert_close(output(model, name, images), logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype: torch.dtype) -> None:
    plain = small_net().eval().to(dtype)
    images = some_images().to(dtype)
    expected = plain(images)
    for first in (True, False):
        net = small_net().eval()
        model = add_auxiliary_norms(net).to(dtype) if first else add_auxiliary_norms(net.to(dtype))
        for name in BRANCHES:
            found = output(model, name, images)
            assert found.dtype == dtype
            assert torch.equal(found, expected)
        for layer in layers_of(model, "adversarial"):
            move(layer, seed=9)
        joint = output(model, BRANCHES, torch.cat([images, images]))
        torch.testing.assert_close(joint[: len(images)], expected)
        torch.testing.assert_close(joint[len(images) :], output(model, "adversarial", images))
        assert not torch.equal(joint[len(images) :], expected)


def test_autocast() -> None:
    model = branched(small_net()).train()
    plain = remove_auxiliary_norms(copy.deepcopy(model), keep="adversarial")
    with torch.autocast("cpu", dtype=torch.bfloat16), use_branch(model, "adversarial"):
        assert torch.equal(model(some_images()), plain(some_images()))
    assert same(buffers(layers_of(model, "adversarial")[0]), buffers(plain[1]))


# SyncBatchNorm (on one process it computes what BatchNorm does)


def fused_net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3), BatchNormAct2d(6, act_layer=nn.SiLU), nn.Conv2d(6, 4, 1)
    )
    move(net[1], seed=11)
    return net


@pytest.mark.parametrize("converted_first", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("convert", "build"),
    [
        (convert_sync_batchnorm, small_net),
        (convert_sync_batchnorm, fused_net),
        (nn.SyncBatchNorm.convert_sync_batchnorm, small_net),
    ],
    ids=["timm", "timm-fused", "torch"],
)
def test_synchronised_layers(convert, build, training: bool, converted_first: bool) -> None:
    expected = outputs(branched(build()).train(training))
    model = branched(convert(build())) if converted_first else convert(branched(build()))
    for name in BRANCHES:
        assert isinstance(layers_of(model, name)[0], nn.SyncBatchNorm)
    assert_outputs(model.train(training), expected)
    plain = remove_auxiliary_norms(model)
    assert isinstance(plain[1], nn.SyncBatchNorm)
    assert list(plain.state_dict()) == list(build().state_dict())


@pytest.mark.parametrize("separate", ["both", "affine", "statistics"])
def test_synchronised_layers_share_and_save_what_they_did(separate: str) -> None:
    model = branched(small_net(), separate=separate)
    saved = snapshot(model)
    clean, adversarial = (layers_of(model, name)[0] for name in BRANCHES)
    shared = [
        name for name in snapshot(clean) if getattr(clean, name) is getattr(adversarial, name)
    ]
    model = convert_sync_batchnorm(model)
    assert list(snapshot(model)) == list(saved)
    model.load_state_dict(saved)
    clean, adversarial = (layers_of(model, name)[0] for name in BRANCHES)
    assert shared == [
        name for name in snapshot(clean) if getattr(clean, name) is getattr(adversarial, name)
    ]
    assert bool(shared) == (separate != "both")


def test_a_conversion_that_loses_activations_is_refused() -> None:
    model = branched(fused_net())
    expected = outputs(model)
    with pytest.raises(ValueError, match=r"drops the activation.*BatchNormAct2d.*timm\.layers"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert_outputs(model, expected)


# layers in two places


def test_a_layer_in_two_places_stays_one_layer() -> None:
    norm = nn.BatchNorm2d(3)
    block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), norm)
    net = nn.Sequential(block, nn.ReLU(), norm, block)
    torch.manual_seed(0)
    move(norm, seed=12)
    plain = copy.deepcopy(net)
    model = add_auxiliary_norms(net)
    assert model[0][1] is model[2] is model[3][1]
    assert_outputs(model.eval(), {name: plain.eval()(some_images()) for name in BRANCHES})
    move(model[2].branches["adversarial"], seed=13)
    outputs(model)
    remove_auxiliary_norms(model)
    assert model[0][1] is model[2] is model[3][1] is norm
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.equal(model(some_images()), plain(some_images()))


def test_tensors_shared_by_two_layers() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    net[2].weight = net[0].weight
    model = add_auxiliary_norms(net)
    assert model[0].branches["clean"].weight is model[2].branches["clean"].weight
    remove_auxiliary_norms(model)
    assert model[0].weight is model[2].weight


def test_hooks_and_frozen_parameters_come_along() -> None:
    net = small_net()
    net[1].weight.requires_grad_(False)
    calls = []
    net[1].register_forward_hook(lambda *_: calls.append(1))
    model = add_auxiliary_norms(net)
    assert not model[1].branches["adversarial"].weight.requires_grad
    output(model, "adversarial", some_images())
    assert len(calls) == 1
