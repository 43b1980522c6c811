from __future__ import annotations

import math
import os
import pickle
from argparse import Namespace
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny import branches_of
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.auxiliary.token import add_auxiliary_tokens
from advprop.models.build import build_model
from advprop.models.small_resnet import SmallResNet
from advprop.models.standardize import Standardized, standardized
from advprop.models.weights import load_local_weights

State = dict[str, Tensor]


def small(num_classes: int = 4, *, seed: int = 0) -> SmallResNet:
    torch.manual_seed(seed)
    return SmallResNet(num_classes, width=8)


def saved(path: Path, state: Any) -> Path:
    torch.save(state, path)
    return path


def equal(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(first[key], second[key]) for key in first
    )


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def averaged(state: State) -> State:
    """As torch's AveragedModel saves it."""
    return {"n_averaged": torch.tensor(7), **prefixed(state, "module.")}


def standardized_run(state: State) -> dict[str, Any]:
    """As a run of advprop saves it, its auxiliary branch elsewhere."""
    plain = small()
    plain.load_state_dict(state)
    model = add_auxiliary_norms(standardized(plain, mean=[0.1], std=[0.2]))
    for norm in branches_of(model, "adversarial"):
        nn.init.constant_(norm.weight, 9.0)
    return {"format": 1, "model": model.state_dict(), "ema": None, "position": {"epoch": 1}}


WRITTEN: dict[str, Callable[[State], Any]] = {
    "alone": lambda state: state,
    "timm": lambda state: {"epoch": 3, "args": Namespace(lr=0.1), "state_dict": state},
    "torchvision": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "lightning": lambda state: {"state_dict": prefixed(state, "model."), "global_step": 5},
    "distributed": lambda state: prefixed(state, "module."),
    "compiled": lambda state: {"state_dict": prefixed(state, "module._orig_mod.")},
    "average of timm": lambda state: {
        "state_dict": {key: value + 1 for key, value in state.items()},
        "state_dict_ema": state,
    },
    "average of torchvision": lambda state: {
        "model": {key: value + 1 for key, value in state.items()},
        "model_ema": averaged(state),
    },
    "advprop": standardized_run,
    "without counters": lambda state: {
        key: value for key, value in state.items() if "num_batches" not in key
    },
    "MadryLab": lambda state: {
        "model": {
            "module.normalizer.new_mean": torch.full((1, 1, 1), 0.1),
            "module.normalizer.new_std": torch.full((1, 1, 1), 0.2),
            **prefixed(state, "module.model."),
            "module.attacker.normalize.new_mean": torch.full((1, 1, 1), 0.1),
            "module.attacker.normalize.new_std": torch.full((1, 1, 1), 0.2),
            **prefixed(state, "module.attacker.model."),
        },
        "epoch": 90,
    },
    "a normaliser in front": lambda state: {
        "state_dict": {"0.mean": torch.ones(1), **prefixed(state, "1.")}
    },
    "an averaged copy": lambda state: {"ema_state_dict": prefixed(state, "module.")},
    "a training loop": lambda state: {"model_state_dict": state, "loss": 0.5},
    "lightning with a loss": lambda state: {
        "state_dict": {**prefixed(state, "net."), "criterion.weight": torch.ones(4)}
    },
    "a compiled backbone": lambda state: prefixed(state, "backbone._orig_mod."),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_checkpoints_of_many_programs(form: str, tmp_path: Path) -> None:
    expected = small(seed=1).state_dict()
    model = small()
    load_local_weights(model, saved(tmp_path / "it.pth", WRITTEN[form](expected)))
    assert equal(model.state_dict(), expected)


@pytest.mark.parametrize("add", [add_auxiliary_norms, add_auxiliary_tokens])
def test_runs_of_transformers_give_their_clean_branch(
    add: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    trained, model = (timm.create_model("test_vit", num_classes=4) for _ in range(2))
    nn.init.normal_(trained.cls_token)
    expected = {key: value.clone() for key, value in trained.state_dict().items()}
    run = add(standardized(trained))
    for name, weight in run.named_parameters():
        if ".branches.adversarial." in name:
            nn.init.constant_(weight, 9.0)
    load_local_weights(model, saved(tmp_path / "run.pt", {"model": run.state_dict()}))
    assert equal(model.state_dict(), expected)


def test_files_and_folders(tmp_path: Path) -> None:
    first, second = small(seed=1).state_dict(), small(seed=2).state_dict()
    saved(tmp_path / "pytorch_model.bin", first)
    model = small()
    load_local_weights(model, tmp_path)
    assert equal(model.state_dict(), first)
    save_file(second, tmp_path / "model.safetensors")
    load_local_weights(model, tmp_path)  # preferred, where there are both
    assert equal(model.state_dict(), second)
    load_local_weights(model, str(tmp_path / "model.safetensors"))
    assert equal(model.state_dict(), second)


@pytest.mark.parametrize("name", ["small_resnet", "test_efficientnet", "test_vit"])
def test_a_classifier_of_other_classes_starts_at_zero(name: str, tmp_path: Path) -> None:
    def build(num_classes: int) -> Standardized:
        statistics = {"mean": [0.1], "std": [0.2]}
        return build_model(name, num_classes=num_classes, in_chans=1, **statistics).eval()

    trained = build(7).model.state_dict()
    model = build(3)
    with pytest.warns(
        UserWarning, match=r"it\.pth: the classifier has other classes there; .*zero"
    ):
        load_local_weights(model.model, saved(tmp_path / "it.pth", trained))
    own = model.model.state_dict()
    fresh = [key for key in own if not torch.equal(own[key], trained[key])]
    assert [own[key].shape[0] for key in fresh] == [3, 3]
    assert not any(own[key].any() for key in fresh)
    assert all(torch.equal(own[key], trained[key]) for key in own if key not in fresh)
    size = 160 if name == "test_vit" else 32
    logits = model(torch.rand(2, 1, size, size))
    assert cross_entropy(logits, torch.tensor([0, 2])).item() == pytest.approx(math.log(3))


def test_weights_without_a_classifier(tmp_path: Path) -> None:
    trained = small(seed=1).state_dict()
    backbone = {key: value for key, value in trained.items() if not key.startswith("fc.")}
    model = small()
    with pytest.warns(UserWarning, match=r"fc\.weight, fc\.bias start at zero"):
        load_local_weights(model, saved(tmp_path / "it.pth", backbone))
    assert equal({key: model.state_dict()[key] for key in backbone}, backbone)
    assert not model.fc.weight.any()


def test_two_classifiers_of_one_model(tmp_path: Path) -> None:
    name = "deit_tiny_distilled_patch16_224"
    trained = timm.create_model(name, num_classes=7, depth=1, img_size=32).state_dict()
    model = timm.create_model(name, num_classes=3, depth=1, img_size=32)
    with pytest.warns(UserWarning, match=r"head\.weight, head\.bias, head_dist\.weight"):
        load_local_weights(model, saved(tmp_path / "it.pth", trained))
    assert not model.head_dist.weight.any()


def test_other_precisions_become_the_models(tmp_path: Path) -> None:
    halves = {
        key: value.bfloat16() if value.is_floating_point() else value
        for key, value in small(seed=1).state_dict().items()
    }
    model = small()
    load_local_weights(model, saved(tmp_path / "it.pth", halves))
    assert model.fc.weight.dtype == torch.float32
    assert torch.equal(model.fc.weight, halves["fc.weight"].float())


@pytest.mark.parametrize("classes", [4, 7], ids=["same classes", "other classes"])
@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_patch16_224"])
def test_a_transformers_weights_at_another_image_size(
    name: str, classes: int, tmp_path: Path
) -> None:
    def build(size: int, num_classes: int) -> nn.Module:
        return timm.create_model(name, num_classes=num_classes, img_size=size, depth=1)

    trained, model = build(64, classes), build(96, 4)
    nn.init.normal_(trained.pos_embed)
    path = saved(tmp_path / "it.pth", {"model": prefixed(trained.state_dict(), "module.")})
    with pytest.warns(UserWarning, match="other classes") if classes != 4 else nullcontext():
        load_local_weights(model, path)
    tokens = model.num_prefix_tokens
    grid = trained.pos_embed[:, tokens:].detach().reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    options = {"size": (6, 6), "mode": "bicubic", "antialias": True}
    larger = nn.functional.interpolate(grid, **options).permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(model.pos_embed[:, tokens:].detach(), larger)
    assert torch.equal(model.blocks[0].mlp.fc1.weight, trained.blocks[0].mlp.fc1.weight)


def test_windows_of_another_size(tmp_path: Path) -> None:
    """Relative positions are resized too, by the architecture's own function."""

    def build(size: int) -> nn.Module:
        options = {"depths": (1, 1), "num_heads": (1, 1), "embed_dim": 8, "num_classes": 4}
        return timm.create_model(
            "swin_tiny_patch4_window7_224", img_size=size, window_size=size // 8, **options
        )

    trained, model = build(32), build(64)
    table = "layers.0.blocks.0.attn.relative_position_bias_table"
    nn.init.normal_(trained.get_parameter(table))
    load_local_weights(model, saved(tmp_path / "it.pth", trained.state_dict()))
    assert model.get_parameter(table).std() > 0.1


@pytest.mark.parametrize(
    ("name", "given", "wanted"),
    [
        ("test_resnet", 3, 1),
        ("test_vit", 3, 1),
        ("test_convnext", 1, 3),
        ("tresnet_m", 3, 1),
        ("small_resnet", 3, 1),
    ],
)
def test_weights_for_other_channels_are_adapted_as_timm_adapts_its_own(
    name: str, given: int, wanted: int, tmp_path: Path
) -> None:
    def build(channels: int) -> Standardized:
        statistics = {"mean": (0.2, 0.3, 0.4)[:channels], "std": (0.2,) * channels}
        return build_model(name, num_classes=4, in_chans=channels, **statistics).eval()

    trained, model = build(given), build(wanted)
    path = saved(tmp_path / "it.pth", trained.model.state_dict())
    with pytest.warns(UserWarning, match=f"takes {given} channels there and {wanted} here"):
        load_local_weights(model, path)
    # a grey picture gives what it gives as three equal channels, where they are standardised alike
    grey = torch.rand(2, 1, 160, 160) if name == "test_vit" else torch.rand(2, 1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            trained.model(grey.expand(-1, given, -1, -1)),
            model.model(grey.expand(-1, wanted, -1, -1)),
            rtol=1e-3,
            atol=1e-4,
        )


@pytest.mark.parametrize(("given", "wanted", "planes"), [(1, 3, 16), (3, 1, 50)])
def test_stems_that_timm_cannot_adapt_are_refused(
    given: int, wanted: int, planes: int, tmp_path: Path
) -> None:
    """`tresnet_m` moves 16 pixels into channels."""
    state = build_model("tresnet_m", num_classes=4, in_chans=given).model.state_dict()
    state["body.conv1.conv.weight"] = torch.zeros(64, planes, 3, 3)
    model = build_model("tresnet_m", num_classes=4, in_chans=wanted)
    with pytest.raises(ValueError, match=rf"conv1\.conv\.weight is \(64, {planes}, 3, 3\) instead"):
        load_local_weights(model, saved(tmp_path / "it.pth", state))


def test_another_mean_is_told(tmp_path: Path) -> None:
    path = saved(tmp_path / "it.pth", WRITTEN["MadryLab"](small(seed=1).state_dict()))
    load_local_weights(standardized(small(), mean=[0.1], std=[0.2]), path)
    with pytest.warns(UserWarning, match=r"mean \[0\.1\] and std \[0\.2\], .*set model\.mean"):
        load_local_weights(standardized(small(), mean=[0.3], std=[0.2]), path)
    coloured = {"1.new_mean": torch.tensor([0.2, 0.3, 0.4]), "1.new_std": torch.full((3,), 0.2)}
    path = saved(tmp_path / "it.pth", {**prefixed(small(seed=1).state_dict(), "0."), **coloured})
    load_local_weights(standardized(small(), mean=[0.3], std=[0.2]), path)  # their mean


UNFIT: dict[str, tuple[Callable[[State], Any], str]] = {
    "another width": (
        lambda state: SmallResNet(4, width=16).state_dict(),
        r"of another architecture, \d+ of another shape or type, as .*\(16, .* instead of \(8,",
    ),
    "a layer is missing": (
        lambda state: dict(list(state.items())[1:]),
        r"another architecture, 1 missing, as stem\.0\.weight: name the model",
    ),
    "a layer too many": (
        lambda state: {**state, "layer9.weight": torch.ones(1)},
        r"1 unknown, as layer9\.weight: name the model",
    ),
    "whole numbers": (
        lambda state: {**state, "fc.weight": state["fc.weight"].to(torch.int8)},
        r"fc\.weight is \(4, 32\) int8 instead of \(4, 32\)",
    ),
    "two models": (
        lambda state: {
            **prefixed(state, "student."),
            **prefixed({key: value + 1 for key, value in state.items()}, "teacher."),
        },
        r"several models, 'student\.' and 'teacher\.' before the names: save the state_dict of one",
    ),
    "a part of another prefix is missing": (
        lambda state: prefixed(dict(list(state.items())[1:]), "module."),
        r"1 missing, as stem\.0\.weight",
    ),
    "a number among the tensors": (lambda state: {**state, "lr": 0.1}, "lr is no tensor"),
    "one tensor": (lambda state: torch.ones(3), "holds no weights"),
    "nothing": (lambda state: {}, "holds no weights"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_changes_nothing(case: str, tmp_path: Path) -> None:
    written, message = UNFIT[case]
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = saved(tmp_path / "it.pth", written(small(seed=1).state_dict()))
    with pytest.raises(ValueError, match=message) as caught:
        load_local_weights(model, path)
    assert str(caught.value).startswith(str(path))
    assert equal(model.state_dict(), before)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_damaged_files(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"it.{ending}"
    if ending == "pth":
        saved(path, small().state_dict())
    else:
        save_file(small().state_dict(), path)
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], b"version https://git-lfs.github.com/spec/v1\n"):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"it.{ending}: .*damaged"):
            load_local_weights(small(), path)


class _Payload:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("protocol", [2, "torch"])
def test_code_in_a_file_is_refused_unrun(protocol: int | str, tmp_path: Path) -> None:
    state = {**small().state_dict(), "extra": _Payload(tmp_path / "run")}
    path = tmp_path / "it.pth"
    if protocol == "torch":
        torch.save(state, path)
    else:
        path.write_bytes(pickle.dumps({"extra": state["extra"]}, protocol=2))
    with pytest.raises(
        ValueError, match=r"holds \w+\.mkdir .*would run code.*save the state_dict alone"
    ):
        load_local_weights(small(), path)
    assert not (tmp_path / "run").exists()


def test_places_where_there_is_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.pth: there is no such checkpoint"):
        load_local_weights(small(), tmp_path / "no.pth")
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors in this folder"):
        load_local_weights(small(), tmp_path)
