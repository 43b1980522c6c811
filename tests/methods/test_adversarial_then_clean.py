"""Adversarial, then clean training: each part is the method that it is named after."""

from __future__ import annotations

import dataclasses

import pytest
from case import ATTACK, Case
from test_limits import one_step, same_state, trained
from tiny import same_tensors, tiny_net

from advprop.methods.adversarial import Adversarial
from advprop.methods.adversarial_then_clean import AdversarialThenClean
from advprop.methods.base import Method
from advprop.methods.vanilla import Vanilla

FIRST = Case(method=AdversarialThenClean(attack=ATTACK), progress=0.2, averages=True)
CASES = {
    "adversarial_then_clean": FIRST,
    "adversarial_then_clean last": dataclasses.replace(FIRST, progress=0.8, draws=False),
}


@pytest.mark.parametrize(
    ("share", "limit"), [(0.0, Vanilla()), (1.0, Adversarial(attack=ATTACK))], ids=["0", "1"]
)
def test_adversarial_share(share: float, limit: Method) -> None:
    method = AdversarialThenClean(attack=ATTACK, adversarial_share=share)
    assert same_state(trained(method, tiny_net()), trained(limit, tiny_net()))
    assert method.passes_per_image == limit.passes_per_image


def test_adversarial_first_then_clean() -> None:
    method = AdversarialThenClean(attack=ATTACK, adversarial_share=0.5)
    for progress, limit in (
        (0.0, Adversarial(attack=ATTACK)),
        (0.49, Adversarial(attack=ATTACK)),
        (0.5, Vanilla()),
        (1.0, Vanilla()),
    ):
        found = one_step(method, tiny_net(), progress=progress)
        assert same_tensors(found, one_step(limit, tiny_net()))


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_impossible_share(share: float) -> None:
    with pytest.raises(ValueError, match=rf"adversarial_share {share}: give one in \[0, 1\]"):
        AdversarialThenClean(attack=ATTACK, adversarial_share=share)
