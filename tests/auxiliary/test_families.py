"""Every promise about branches, on the smallest model of every timm family."""

import pytest
import timm
import torch
from timm_families import (
    FAMILIES,
    WITHOUT_NORMS,
    Family,
    check_family,
    smallest_model,
    timm_family_names,
)

from advprop.auxiliary.surgery import add_auxiliary_norms

# at least one of each kind of layer, of network and of layout
SPREAD = frozenset(
    [
        "byobnet",
        "cait",
        "convit",
        "convnext",
        "csatv2",
        "cspnet",
        "deit",
        "edgenext",
        "efficientformer_v2",
        "efficientnet",
        "efficientvit_mit",
        "eva",
        "fasternet",
        "gcvit",
        "ghostnet",
        "inception_next",
        "iformer",
        "levit",
        "lowformer",
        "mambaout",
        "maxxvit",
        "metaformer",
        "mlp_mixer",
        "mobilenetv3",
        "mobilevit",
        "pit",
        "pvt_v2",
        "regnet",
        "resnet",
        "resnetv2",
        "shvit",
        "starnet",
        "vision_transformer_hybrid",
        "vitamin",
        "volo",
        "xcit",
    ]
)


def cases() -> list:
    return [
        pytest.param(
            family, id=family.name, marks=[] if family.name in SPREAD else pytest.mark.full
        )
        for family in FAMILIES
        if family.name not in WITHOUT_NORMS
    ]


@pytest.mark.parametrize("family", cases())
def test_branches_keep_every_promise(family: Family) -> None:
    kinds = check_family(family)
    assert kinds.total() >= 5


@pytest.mark.parametrize("family", WITHOUT_NORMS)
def test_families_without_normalisation_layers_are_refused(family: str) -> None:
    name = next(case.model for case in FAMILIES if case.name == family)
    with torch.device("meta"):
        model = timm.create_model(name)
    with pytest.raises(ValueError, match=r"found no normalisation layer.*Conv2d x\d+.*is_norm="):
        add_auxiliary_norms(model)


def test_every_family_of_timm_is_listed() -> None:
    assert [family.name for family in FAMILIES] == timm_family_names()
    assert len(SPREAD) >= 20


@pytest.mark.full
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_listed_model_is_the_smallest(family: Family) -> None:
    assert smallest_model(family.name) == family.model
