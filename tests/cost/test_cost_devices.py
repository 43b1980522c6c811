"""Several devices, by hand."""

from __future__ import annotations

import pytest
from tiny import tiny_branched_net, tiny_net

from advprop.cost.devices import Exchange, exchange, images_per_device
from advprop.cost.memory import num_bytes
from advprop.training.settings import TrainingSettings

FACTS = Exchange(gradients=1000, running=100, gathered=10, summed=20)


def settings(batch_size: int, gradient_accumulation: int = 1) -> TrainingSettings:
    return TrainingSettings(
        num_epochs=1, batch_size=batch_size, gradient_accumulation=gradient_accumulation
    )


def test_images_go_through_at_once_by_device_and_part() -> None:
    assert images_per_device(settings(64), 1) == 64
    assert images_per_device(settings(64, 4), 8) == 2


@pytest.mark.parametrize(
    ("batch_size", "parts", "devices", "message"),
    [
        (64, 1, 0, "at least 1"),
        (64, 1, 128, "batch_size=64 is smaller than 128 devices: .* multiple of 128"),
        (64, 1, 24, "batch_size=64 cannot be divided by 24 devices"),
        (64, 2, 64, "smaller than 64 devices with gradient_accumulation 2"),
    ],
)
def test_a_batch_that_cannot_be_shared(
    batch_size: int, parts: int, devices: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        images_per_device(settings(batch_size, parts), devices)


def test_one_device_sends_nothing() -> None:
    assert FACTS.sent(1) == {"gradients": 0, "statistics": 0}


def test_rings_by_hand() -> None:
    # adding up: 2 * 3/4 of the bytes; gathering: 3 times them
    assert FACTS.sent(4) == {"gradients": 1500, "statistics": 1.5 * (100 + 20) + 3 * 10}


def test_what_a_net_exchanges_by_hand() -> None:
    channels = 6 + 8
    plain = exchange(tiny_net(), settings(8))
    assert plain.gradients == num_bytes(tiny_net().parameters())
    assert plain.running == 4 * 2 * channels
    assert plain.gathered == 4 * (2 * channels + 2)
    assert plain.summed == 4 * 2 * channels


def test_branches_and_parts_of_a_batch_exchange_more_statistics() -> None:
    plain, branched = exchange(tiny_net(), settings(8)), exchange(tiny_branched_net(), settings(8))
    assert branched.running == 2 * plain.running
    assert branched.gathered == 2 * plain.gathered
    assert branched.gradients == plain.gradients + 4 * 2 * (6 + 8)
    parts = exchange(tiny_net(), settings(8, 4))
    assert (parts.summed, parts.running) == (4 * plain.summed, plain.running)
    apart = exchange(tiny_net(), settings(8, 4), synchronised=False)
    assert (apart.summed, apart.gathered, apart.running) == (0, 0, plain.running)
