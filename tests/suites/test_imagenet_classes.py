"""The lists of classes, held against the published ones."""

from __future__ import annotations

import hashlib

import pytest
from timm.data import ImageNetInfo

from advprop.suites.imagenet.classes import (
    OBJECTNET_CLASSES,
    described,
    imagenet_a_wnids,
    imagenet_r_wnids,
    imagenet_wnids,
    output_of,
    real_labels,
)

# of the sorted WordNet ids joined by newlines: `thousand_k_to_200` of eval.py in
# hendrycks/natural-adv-examples, `imagenet_r_wnids` of eval.py in hendrycks/imagenet-r
PUBLISHED = {
    imagenet_a_wnids: "f6aa4b23244554d9b864fd715ae20048f6a9686388911b2dfbf1ada01bf0f520",
    imagenet_r_wnids: "e19a59d84e3746fafd34d2ccf6ae604a44e9a0500a596f343c878a89e30ce624",
}
OBJECTNET_SHA256 = "f168a85df08e29f59d46a4f17e1c956fc7062c17cce7fb89ea96aafe7ba53fc3"


@pytest.mark.parametrize("wnids", PUBLISHED, ids=lambda wnids: wnids.__name__)
def test_class_masks_are_the_published_ones(wnids: object) -> None:
    assert len(wnids()) == len(set(wnids())) == 200
    assert list(wnids()) == sorted(wnids())
    assert set(wnids()) < set(imagenet_wnids())
    assert hashlib.sha256("\n".join(wnids()).encode()).hexdigest() == PUBLISHED[wnids]


def test_the_two_masks_have_86_classes_in_common() -> None:
    assert len(set(imagenet_a_wnids()) & set(imagenet_r_wnids())) == 86


def test_the_order_of_imagenet_is_the_alphabets() -> None:
    assert len(imagenet_wnids()) == 1000
    assert list(imagenet_wnids()) == sorted(imagenet_wnids())
    assert imagenet_wnids()[:2] == ("n01440764", "n01443537")
    assert described(imagenet_wnids()) == (
        "n01440764 (tench), n01443537 (goldfish), n01484850 (great white shark), and 997 more"
    )


def test_objectnet_has_113_classes_in_common() -> None:
    accepted = [wnid for wnids in OBJECTNET_CLASSES.values() for wnid in wnids]
    assert len(OBJECTNET_CLASSES) == 113
    assert len(accepted) == len(set(accepted)) == 125
    assert set(accepted) < set(imagenet_wnids())
    # of the two published tables, by ImageNet's numbers
    number = {wnid: number for number, wnid in enumerate(imagenet_wnids())}
    lines = [
        f"{name} {' '.join(str(number[wnid]) for wnid in wnids)}"
        for name, wnids in sorted(OBJECTNET_CLASSES.items())
    ]
    assert lines[:3] == ["alarm_clock 409 530", "backpack 414", "banana 954"]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest() == OBJECTNET_SHA256
    info = ImageNetInfo()
    chairs = [info.label_name_to_description(wnid) for wnid in OBJECTNET_CLASSES["chair"]]
    assert chairs == ["barber chair", "folding chair", "rocking chair, rocker"]


def test_real_labels_are_there() -> None:
    labels = real_labels()
    assert len(labels) == 50000
    assert sum(map(bool, labels)) == 46837
    assert labels[:3] == ((), (795, 970), (230, 231))
    assert {label for found in labels for label in found} <= set(range(1000))


def test_a_models_outputs_are_found_by_name_whatever_their_order() -> None:
    names = imagenet_wnids()[::-1]
    assert output_of(names, "it")["n01440764"] == 999
    for wrong in (names[:-1], [*names[:-1], "cat"], [*names, "cat"], [str(n) for n in range(10)]):
        with pytest.raises(ValueError, match=rf"it has {len(wrong)} classes .*needs ImageNet's 1,"):
            output_of(wrong, "it")
