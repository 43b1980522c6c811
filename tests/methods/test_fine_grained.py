"""Fine-grained AdvProp: with one attack it is AdvProp, and each source has its own branch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from case import ATTACK, Case
from test_limits import one_step, same_state, trained
from tiny import tiny_branched_net, tiny_images, tiny_labels, tiny_net

from advprop.methods.advprop import AdvProp
from advprop.methods.fine_grained import FineGrained
from advprop.methods.vanilla import Vanilla
from advprop.shapes import Batch

CASES = {
    "fine_grained joint": Case(
        method=FineGrained(
            attacks={"noise": dataclasses.replace(ATTACK, num_steps=0), "adversarial": ATTACK},
            form="joint",
        )
    ),
}


@pytest.mark.parametrize("form", ["separate", "joint"])
def test_fine_grained_with_one_attack_is_advprop(form: str) -> None:
    fine_grained = FineGrained(attacks={"adversarial": ATTACK}, form=form)
    found = trained(fine_grained, tiny_branched_net())
    assert same_state(found, trained(AdvProp(attack=ATTACK, form=form), tiny_branched_net()))
    assert fine_grained.passes_per_image == AdvProp(attack=ATTACK).passes_per_image


def test_fine_grained_joint_is_separate() -> None:
    sources = {"noise": dataclasses.replace(ATTACK, num_steps=0), "adversarial": ATTACK}
    separate, joint = (
        one_step(
            FineGrained(attacks=sources, form=form),
            tiny_branched_net(auxiliary=("noise", "adversarial")),
        )
        for form in ("separate", "joint")
    )
    for name, gradient in separate.items():
        torch.testing.assert_close(joint[name], gradient)


def test_fine_grained_views_learn_through_their_own_branch() -> None:
    """A view that is the images themselves gives its branch what vanilla training gives."""
    model = tiny_branched_net(auxiliary=("copy",)).train()
    images, labels = tiny_images(), tiny_labels()
    batch = Batch(images=images, labels=labels, views={"copy": images})
    metrics = FineGrained(views=("copy",), form="separate").forward_backward(model, batch)
    vanilla = tiny_net().train()
    Vanilla().forward_backward(vanilla, images, labels)
    plain_parameters = dict(vanilla.named_parameters())
    for name, parameter in model.named_parameters():
        branch, _, rest = name.partition("branches.")[2].partition(".")
        theirs = plain_parameters[name.replace(f"branches.{branch}.", "") if rest else name]
        torch.testing.assert_close(parameter.grad, theirs.grad * (1 if rest else 2))
    assert list(metrics.kinds) == ["clean", "copy"]
    assert metrics.perturbation is None


def test_fine_grained_sources_must_be_named_once() -> None:
    with pytest.raises(ValueError, match="no source of images: give attacks or views"):
        FineGrained()
    for wrong in ({"views": ("adversarial",)}, {"views": ("clean",)}, {"views": ("a", "a")}):
        with pytest.raises(ValueError, match="each has one source, and clean the images"):
            FineGrained(attacks={"adversarial": ATTACK}, **wrong)
    with pytest.raises(ValueError, match=r'no view "strong" \(it has none\): .*data.views.strong'):
        one_step(FineGrained(views=("strong",)), tiny_branched_net(auxiliary=("strong",)))
