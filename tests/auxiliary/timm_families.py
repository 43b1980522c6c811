"""The smallest model of each of timm's model families, and what is proven on it.

`python tests/auxiliary/timm_families.py` prints the table of `docs/families.md`.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
import timm
import torch
from timm.models import _registry
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from advprop.auxiliary.branches import use_branch
from advprop.auxiliary.norm import AuxiliaryNorm
from advprop.auxiliary.surgery import add_auxiliary_norms, remove_auxiliary_norms

BATCH = 2


@dataclass(frozen=True)
class Family:
    """A family (a module of `timm.models`), its smallest model, and input that it takes."""

    name: str
    model: str
    size: int
    options: dict[str, Any] = field(default_factory=dict)

    def build(self) -> nn.Module:
        """The model in eval mode, with nothing left at a value that would hide a mistake."""
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of timm: deprecated arguments of its own
            model = timm.create_model(self.model, **self.options).eval()
        randomise_constants(model)
        calibrate_statistics(model, self.images(seed=2, count=4 * BATCH))
        return model

    def images(self, *, seed: int, count: int = BATCH) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 3, self.size, self.size, generator=generator)


FAMILIES = (
    Family("beit", "beit_base_patch16_224", 64, {"img_size": 64}),
    Family("byoanet", "halonet_h1", 256, {"img_size": 256}),
    Family("byobnet", "test_byobnet", 64, {"img_size": 64}),
    Family("cait", "cait_xxs24_224", 64, {"img_size": 64}),
    Family("coat", "coat_tiny", 64, {"img_size": 64}),
    Family("convit", "convit_tiny", 64, {"img_size": 64}),
    Family("convmixer", "convmixer_768_32", 64),
    Family("convnext", "test_convnext", 64),
    Family("cpubone", "cpubone_nano", 64),
    Family("crossvit", "crossvit_tiny_240", 64),
    Family("csatv2", "csatv2", 64),
    Family("cspnet", "cs3darknet_focus_s", 64),
    Family("cspnext", "cspnext_tiny", 64),
    Family("davit", "davit_tiny", 64),
    Family("deepseek_vit", "deepseek_vit_412m", 126, {"img_size": 126}),
    Family("deit", "deit_tiny_patch16_224", 64, {"img_size": 64}),
    Family("densenet", "densenet121", 64),
    Family("dla", "dla46x_c", 64),
    Family("dpn", "dpn48b", 64),
    Family("edgenext", "edgenext_xx_small", 64),
    Family("efficientformer", "efficientformer_l1", 224, {"img_size": 224}),
    Family("efficientformer_v2", "efficientformerv2_s0", 64, {"img_size": 64}),
    Family("efficientnet", "test_efficientnet", 64),
    Family("efficientvim", "efficientvim_m1", 64),
    Family("efficientvit_mit", "efficientvit_b0", 64),
    Family("efficientvit_msra", "efficientvit_m0", 96, {"img_size": 96}),
    Family("eva", "vit_tiny_patch16_dinov3_qkvb", 64, {"img_size": 64}),
    Family("fasternet", "fasternet_t0", 64),
    Family("fastvit", "fastvit_t8", 64),
    Family("focalnet", "focalnet_tiny_srf", 64),
    Family("gcvit", "gcvit_xxtiny", 64, {"img_size": 64}),
    Family("gemma4_vit", "gemma4_vit_167m", 64, {"img_size": 64}),
    Family("ghostnet", "ghostnet_050", 64),
    Family("hardcorenas", "hardcorenas_b", 64),
    Family("hgnet", "hgnetv2_b0", 64),
    Family("hiera", "hiera_tiny_224", 64, {"img_size": 64}),
    Family("hieradet_sam2", "sam2_hiera_tiny", 64),
    Family("hrnet", "hrnet_w18_small", 64),
    Family("iformer", "iformer_t", 64),
    Family("inception_next", "inception_next_atto", 64),
    Family("inception_resnet_v2", "inception_resnet_v2", 96),
    Family("inception_v3", "inception_v3", 96),
    Family("inception_v4", "inception_v4", 96),
    Family("lcnetv2", "lcnetv2_small", 64),
    Family("levit", "levit_128s", 64, {"img_size": 64}),
    Family("lowformer", "lowformer_b0", 64),
    Family("mambaout", "test_mambaout", 64),
    Family("maxxvit", "test_coatnet", 64, {"img_size": 64}),
    Family("metaformer", "poolformerv2_s12", 64),
    Family("mlp_mixer", "gmlp_ti16_224", 64, {"img_size": 64}),
    Family("mobilenetv3", "mobilenetv3_small_050", 64),
    Family("mobilenetv5", "mobilenetv5_base", 64),
    Family("mobilevit", "mobilevit_xxs", 64, {"img_size": 64}),
    Family("mvitv2", "mvitv2_tiny", 64, {"img_size": 64}),
    Family("naflexvit", "naflexvit_base_patch16_parfac_gap", 64, {"img_size": 64}),
    Family("nasnet", "nasnetalarge", 64),
    Family("nest", "nest_tiny", 64, {"img_size": 64}),
    Family("nextvit", "nextvit_small", 64),
    Family("nfnet", "test_nfnet", 64),
    Family("pit", "pit_ti_224", 64, {"img_size": 64}),
    Family("pnasnet", "pnasnet5large", 64),
    Family("pvt_v2", "pvt_v2_b0", 64),
    Family("qwen3_vit", "qwen3_vit_88m", 64, {"img_size": 64}),
    Family("rdnet", "rdnet_tiny", 64),
    Family("regnet", "regnetx_002", 64),
    Family("repghost", "repghostnet_050", 64),
    Family("repvit", "repvit_m1", 64, {"img_size": 64}),
    Family("res2net", "res2next50", 64),
    Family("resnest", "resnest14d", 64),
    Family("resnet", "test_resnet", 64),
    Family("resnetv2", "resnetv2_18", 64),
    Family("rexnet", "rexnet_100", 64),
    Family("selecsls", "selecsls42", 64),
    Family("senet", "legacy_seresnet18", 64),
    Family("sequencer", "sequencer2d_s", 64, {"img_size": 64}),
    Family("shvit", "shvit_s1", 64),
    Family("sknet", "skresnet18", 64),
    Family("starnet", "starnet_s050", 64),
    Family("swiftformer", "swiftformer_xs", 64, {"img_size": 64}),
    Family("swin_transformer", "swin_tiny_patch4_window7_224", 64, {"img_size": 64}),
    Family("swin_transformer_v2", "swinv2_tiny_window16_256", 64, {"img_size": 64}),
    Family("swin_transformer_v2_cr", "swinv2_cr_tiny_224", 64, {"img_size": 64}),
    Family("tiny_vit", "tiny_vit_5m_224", 64),
    Family("tnt", "tnt_s_legacy_patch16_224", 64, {"img_size": 64}),
    Family("tresnet", "tresnet_m", 64),
    Family("twins", "twins_svt_small", 64, {"img_size": 64}),
    Family("vgg", "vgg11", 64),
    Family("visformer", "visformer_tiny", 64, {"img_size": 64}),
    Family("vision_transformer", "test_vit", 64, {"img_size": 64}),
    Family("vision_transformer_hybrid", "vit_tiny_r_s16_p8_224", 64, {"img_size": 64}),
    Family("vision_transformer_relpos", "test_vit_relpos", 64, {"img_size": 64}),
    Family("vision_transformer_sam", "samvit_base_patch16_224", 64, {"img_size": 64}),
    Family("vitamin", "vitamin_small_224", 64, {"img_size": 64}),
    Family("volo", "volo_d1_224", 64, {"img_size": 64}),
    Family("vovnet", "ese_vovnet19b_slim_dw", 64),
    Family("xception", "legacy_xception", 64),
    Family("xception_aligned", "xception41p", 64),
    Family("xcit", "xcit_nano_12_p8_224", 64, {"img_size": 64}),
)

WITHOUT_NORMS = ("nfnet", "vgg")  # their smallest models: there is nothing to give branches to
MIXES_IMAGES = ("csatv2",)  # attends over the images of a batch: no tuple of branches


def timm_family_names() -> list[str]:
    return sorted(_registry._module_to_models)


def smallest_model(family: str) -> str:
    """The model of `family` with the fewest parameters, found on the meta device."""
    sizes = {}
    # deprecated names only point to models that are listed anyway
    for name in sorted(_registry._module_to_models[family] - set(_registry._deprecated_models)):
        with torch.device("meta"):
            sizes[name] = sum(p.numel() for p in timm.create_model(name).parameters())
    return min(sizes, key=sizes.__getitem__)


@torch.no_grad()
def randomise_constants(model: nn.Module) -> None:
    """Fill zero heads, layer scales and fresh affine parameters."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.numel() and bool((parameter == parameter.flatten()[0]).all()):
            constant = parameter.flatten()[0].item()
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(constant + 0.2 * noise)


@torch.no_grad()
def calibrate_statistics(model: nn.Module, images: Tensor) -> None:
    """Take running statistics from a batch: with arbitrary ones deep nets lose their signal."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
        layer.training = True
    model(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.training = False


@torch.no_grad()
def move_branch(model: nn.Module, branch: str) -> None:
    """Change all that one branch owns, as training would."""
    generator = torch.Generator().manual_seed(2)
    for layer in model.modules():
        if isinstance(layer, AuxiliaryNorm):
            for tensor in layer.branches[branch].state_dict().values():
                if tensor.is_floating_point():
                    factor = torch.rand(tensor.shape, generator=generator) + 0.5
                    tensor.mul_(factor)
                else:
                    tensor.add_(1)


def scaled_difference(first: Tensor, second: Tensor) -> float:
    """Largest difference, as a fraction of the largest value."""
    return ((first - second).abs().max() / first.abs().max()).item()


@torch.no_grad()
def check_family(family: Family) -> Counter[str]:
    """Add, move, route, load and remove branches; returns the kinds of layers replaced."""
    plain = family.build()
    first, second = family.images(seed=3), family.images(seed=4)
    expected = plain(first)
    assert expected.isfinite().all()
    assert scaled_difference(expected, plain(second)) > 1e-4, "equal outputs would say nothing"

    model = add_auxiliary_norms(copy.deepcopy(plain))
    kinds = Counter(
        type(layer.branches["clean"]).__name__
        for layer in model.modules()
        if isinstance(layer, AuxiliaryNorm)
    )
    assert torch.equal(model(first), expected)
    with use_branch(model, "adversarial"):
        assert torch.equal(model(first), expected)

    move_branch(model, "adversarial")
    assert torch.equal(model(first), expected)
    with use_branch(model, "adversarial"):
        assert scaled_difference(expected, model(first)) > 1e-4
    if family.name in MIXES_IMAGES:
        check_tuple_refused(model, plain, first, second)
    else:
        check_tuple(model, first, second)
    check_loading(model, plain, first, expected)
    check_removal(model, plain, first, expected)
    return kinds


def check_tuple(model: nn.Module, first: Tensor, second: Tensor) -> None:
    """Each part of a batch meets its own branch; parts that cannot be equal are refused.

    In float64: in float32 even a plain model's logits may change with the size of the batch (by
    2e-5 of the largest in rexnet, where a fault must stand out).
    """
    model, first, second = copy.deepcopy(model).double(), first.double(), second.double()
    clean = model(first)
    with use_branch(model, "adversarial"):
        adversarial = model(second)
    with use_branch(model, ("clean", "adversarial")):
        joint = model(torch.cat([first, second]))
        with pytest.raises(ValueError, match=rf"batch of {BATCH + 1} .* over 2 branches"):
            model(torch.cat([first, second[:1]]))
    assert joint.dtype == torch.float64
    scale = joint.abs().max()
    torch.testing.assert_close(joint / scale, torch.cat([clean, adversarial]) / scale)


def check_tuple_refused(model: nn.Module, plain: nn.Module, first: Tensor, second: Tensor) -> None:
    """Refused by name, and rightly: with the refusal lifted, the branches leak into each other.

    In the plain model the leak does not show: what is mixed over the batch is a LayerNorm of one
    channel, its bias, the same for every image, as long as there is one branch.
    """
    with pytest.raises(ValueError, match=rf"{type(plain).__name__} attends over the images"):
        use_branch(model, ("clean", "adversarial")).__enter__()
    route = next(layer.route for layer in model.modules() if isinstance(layer, AuxiliaryNorm))
    refusal, route.no_tuple = route.no_tuple, None
    with pytest.raises(AssertionError, match="not close"):
        check_tuple(model, first, second)
    route.no_tuple = refusal


def check_loading(model: nn.Module, plain: nn.Module, images: Tensor, expected: Tensor) -> None:
    """A plain checkpoint reaches every branch, a converted one each its own."""
    converted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with use_branch(model, "adversarial"):
        moved = model(images)
        model.load_state_dict(plain.state_dict())
        assert torch.equal(model(images), expected)
        model.load_state_dict(converted)
        assert torch.equal(model(images), moved)
    assert torch.equal(model(images), expected)


def check_removal(model: nn.Module, plain: nn.Module, images: Tensor, expected: Tensor) -> None:
    """Nothing is left of the branches, and what is kept loads into timm's own model."""
    remove_auxiliary_norms(model)
    assert [(name, type(layer)) for name, layer in model.named_modules()] == [
        (name, type(layer)) for name, layer in plain.named_modules()
    ]
    assert list(model.state_dict()) == list(plain.state_dict())
    assert torch.equal(model(images), expected)
    for tensor in plain.state_dict().values():
        tensor.zero_()
    plain.load_state_dict(model.state_dict())
    assert torch.equal(plain(images), expected)


def main() -> None:
    """Print the table of `docs/families.md`."""
    torch.set_num_threads(1)
    rows = []
    for family in FAMILIES:
        if family.name in WITHOUT_NORMS:
            result, kinds = "refused: no normalisation layer", Counter()
        else:
            kinds = check_family(family)
            result = "passes, tuples refused" if family.name in MIXES_IMAGES else "passes"
        layers = ", ".join(f"{kind} x{count}" for kind, count in sorted(kinds.items()))
        rows.append(f"| {family.name} | {family.model} | {family.size} | {layers} | {result} |")
        print(f"{len(rows)}/{len(FAMILIES)} {family.name}", file=sys.stderr)
    print("| family | smallest model | pixels | layers given branches | result |")
    print("| --- | --- | --- | --- | --- |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
