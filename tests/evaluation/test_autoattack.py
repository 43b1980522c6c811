"""AutoAttack through pyautoattack: what it finds is judged by ourselves."""

from __future__ import annotations

import sys

import pytest
import torch
from tiny import tiny_net
from torch import Tensor

from advprop.attacks.threat_models import L2, Linf, ThreatModel
from advprop.evaluation import autoattack
from advprop.evaluation.autoattack import COMPONENTS, evaluate_autoattack
from advprop.evaluation.robustness import evaluate_adversarial
from advprop.shapes import Batch, LogitsFn

COUNT = 10


def net() -> LogitsFn:
    model = tiny_net().eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    centre = model(pixels()).mean(dim=0)
    return lambda shown: 20 * (model(shown) - centre)


def pixels() -> Tensor:
    return torch.rand(COUNT, 3, 10, 10, generator=torch.Generator().manual_seed(3))


def batch() -> Batch:
    return Batch(images=pixels(), labels=net()(pixels()).argmax(dim=1))


@pytest.mark.parametrize("ball", [Linf(0.02), L2(0.2)], ids=str)
def test_accuracy_falls_from_attack_to_attack(
    ball: ThreatModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoattack, "ITERATIONS", 6)
    monkeypatch.setattr(autoattack, "QUERIES", 15)
    logits_fn, images = net(), [batch()]
    state = torch.get_rng_state()
    found = evaluate_autoattack(logits_fn, images, threat_model=ball, attacked_logits_fn=logits_fn)
    assert torch.equal(torch.get_rng_state(), state)
    after = list(found["after"].values())
    assert tuple(found["after"]) == COMPONENTS
    assert [found["clean_accuracy"], *after] == sorted([1.0, *after], reverse=True)
    assert after[-1] == found["autoattack_accuracy"] < 1.0
    assert found["largest"] <= ball.epsilon * 1.0001
    assert found["num_corrected"] == 0
    again = evaluate_autoattack(net(), [batch()], threat_model=ball, attacked_logits_fn=net())
    assert {**again, "seconds": 0} == {**found, "seconds": 0}


def test_what_is_outside_is_put_back_before_it_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cheating:
        def run_standard_evaluation(self, images: Tensor, labels: Tensor, **_: int) -> tuple:
            return torch.rand_like(images) * 3 - 1, labels

    monkeypatch.setattr(autoattack, "_standard", lambda *_: Cheating())
    seen = []

    def spy(shown: Tensor) -> Tensor:
        seen.append(shown)
        return net()(shown)

    ball = Linf(0.001)
    found = evaluate_autoattack(spy, [batch()], threat_model=ball, attacked_logits_fn=net())
    assert found["num_corrected"] >= COUNT
    for shown in seen:
        assert shown.min() >= 0
        assert shown.max() <= 1
    assert found["autoattack_accuracy"] > 0.5


def test_too_few_classes_and_pixels() -> None:
    with pytest.raises(ValueError, match=r"3 classes.*need 4.*adversarial"):
        evaluate_autoattack(
            lambda shown: net()(shown)[:, :3],
            [batch()],
            threat_model=Linf(0.1),
            attacked_logits_fn=net(),
        )
    small = Batch(images=pixels()[:, :, :4, :4], labels=batch().labels)
    with pytest.raises(ValueError, match="4x4 pixels"):
        evaluate_autoattack(net(), [small], threat_model=Linf(0.1), attacked_logits_fn=net())


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    with pytest.raises(ImportError, match=r"pip install 'advprop\[autoattack\]'"):
        evaluate_autoattack(net(), [batch()], threat_model=Linf(0.1), attacked_logits_fn=net())


@pytest.mark.full
@pytest.mark.parametrize("ball", [Linf(0.02), L2(0.2)], ids=str)
def test_the_standard_set_is_at_least_as_strong_as_pgd(ball: ThreatModel) -> None:
    from test_robustness import pgd

    whole = evaluate_autoattack(net(), [batch()], threat_model=ball, attacked_logits_fn=net())
    options = {"attack": pgd(ball, 20), "attacked_logits_fn": net(), "restarts": 5}
    ours = evaluate_adversarial(net(), [batch()], **options)
    assert whole["autoattack_accuracy"] <= ours["adversarial_accuracy"]
