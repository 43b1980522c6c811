"""A model that cannot take the images is refused by one small pass that leaves no trace."""

from __future__ import annotations

import pytest
import torch
from tiny import NUM_CLASSES, modes, tiny_branched_net, tiny_vit
from torch import Tensor, nn

from advprop.models.trial import check_forward


class _Odd(nn.Module):
    """Gives anything but logits."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, images: Tensor) -> object:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_pass_leaves_no_trace() -> None:
    model = tiny_branched_net(dropout=0.5)
    next(model.children()).eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    before, drawn = modes(model), torch.random.get_rng_state()
    check_forward(model, "net", image_shape=(3, 9, 7), num_classes=NUM_CLASSES)
    assert modes(model) == before
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_a_size_that_does_not_fit_is_named_with_what_changes_it() -> None:
    model = tiny_vit()
    check_forward(model, "vit", image_shape=(3, 8, 8), num_classes=NUM_CLASSES)
    with pytest.raises(
        ValueError, match=r"vit cannot take images of 3 x 4 x 4 .*: change data.image_size, model"
    ):
        check_forward(model, "vit", image_shape=(3, 4, 4), num_classes=NUM_CLASSES)
    assert model.training


@pytest.mark.parametrize(
    "error", [RuntimeError(""), AssertionError(), AttributeError("a"), ValueError("two\nlines")]
)
def test_what_a_model_raises_becomes_one_message(error: Exception) -> None:
    with pytest.raises(ValueError, match=r"^net cannot take images of 1 x 2 x 2 \(.+\): change"):
        check_forward(_Odd(error), "net", image_shape=(1, 2, 2), num_classes=3)


@pytest.mark.parametrize(
    "answer", [[torch.zeros(1, 3)], torch.zeros(1, 3, 2, 2), torch.zeros(1, 4)]
)
def test_other_outputs_than_logits_are_refused(answer: object) -> None:
    with pytest.raises(ValueError, match=r"\(1, 3\), are needed: change model\.options"):
        check_forward(_Odd(answer), "net", image_shape=(1, 2, 2), num_classes=3)
