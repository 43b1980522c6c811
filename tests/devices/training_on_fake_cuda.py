"""Training steps on fake CUDA tensors: `test_fake_cuda.py` runs this file in a new Python."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import DEVICE, Findings, fake_cuda
from fake_training import Case, steps
from tiny import tiny_convnext, tiny_net, tiny_vit
from torch import Tensor, nn

from advprop.attacks.fgsm import fgsm
from advprop.attacks.objectives import given, least_likely_class, untargeted
from advprop.attacks.pgd import PGD
from advprop.attacks.pyramid import PyramidPGD
from advprop.attacks.threat_models import L2, Linf
from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.auxiliary.token import add_auxiliary_tokens
from advprop.config.attacks import PAPER_ATTACK
from advprop.config.methods import METHODS, method_config
from advprop.methods.advprop import AdvProp
from advprop.methods.advprop_lean import AdvPropLean
from advprop.methods.base import Method
from advprop.methods.fine_grained import FineGrained
from advprop.methods.kept.store import PerturbationStore
from advprop.methods.step import Context, StepMetrics
from advprop.methods.vanilla import Vanilla
from advprop.models.standardize import standardized
from advprop.shapes import Batch

FIGURES = Path(__file__).parent / "launches.json"
TOLERANCE = 0.1  # torch's releases differ in the kernels that they launch

# every place of a step that makes the host wait for the device, and why it may
WAITS: dict[tuple[str, str], str] = {}
FP16_WAITS = {("item", "training/trainer.py:train_step"): "torch's scaler looks for overflows"}

ATTACK = PAPER_ATTACK.model_copy(update={"num_steps": 1})
PGD_STEP = PGD(
    threat_model=Linf(4 / 255), num_steps=1, step_size=1 / 255, random_start_probability=0.8
)
ADVPROP = AdvProp(attack=PGD_STEP)


def case(method: Method, net: Callable[..., nn.Module] = tiny_net, **options: Any) -> Case:
    size = 8 if net is tiny_vit else 32
    drop = {"dropout": 0.1} if net is tiny_net else {"drop": 0.1}
    half = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    return Case(method=method, net=lambda: standardized(net(**drop), **half), size=size, **options)


def attacking(**changes: Any) -> Method:
    return AdvProp(attack=replace(PGD_STEP, **changes))


def registered(name: str) -> Method:
    return method_config(name, ATTACK).build()


CASES = {name: case(registered(name)) for name in METHODS}
VARIANTS = {
    "joint, soft labels": case(AdvProp(attack=PGD_STEP, form="joint"), soft=True),
    "summed, accumulation, adamw": case(
        AdvProp(attack=PGD_STEP, form="summed"),
        settings={"gradient_accumulation": 2, "optimizer": "adamw"},
    ),
    "matched masks, L2": case(
        AdvProp(attack=replace(PGD_STEP, threat_model=L2(1.0)), matched_masks=True)
    ),
    "views": case(FineGrained(attacks={"adversarial": PGD_STEP}, views=("view",))),
    "frames": case(registered("advprop_lean"), frames=True),
    "tokens, checkpointing": case(
        ADVPROP,
        tiny_vit,
        surgery=add_auxiliary_tokens,
        settings={"activation_checkpointing": True},
    ),
}
MORE_VARIANTS = {
    "tokens": case(ADVPROP, tiny_vit, surgery=add_auxiliary_tokens),
    "checkpointing": case(ADVPROP, tiny_convnext, settings={"activation_checkpointing": True}),
    "advprop_lean L2": case(AdvPropLean(threat_model=L2(1.0))),
    "fast, soft labels": case(registered("fast"), soft=True),
    "mixed, soft labels": case(registered("mixed"), soft=True),
    "FGSM": case(AdvProp(attack=fgsm(Linf(4 / 255)))),
    "pyramid attack": case(AdvProp(attack=PyramidPGD(num_steps=1, random_start_probability=0.5))),
    "statistics": case(
        ADVPROP, surgery=lambda *of: add_auxiliary_norms(*of, separate="statistics")
    ),
    "affine": case(ADVPROP, surgery=lambda *of: add_auxiliary_norms(*of, separate="affine")),
    "ConvNeXt": case(ADVPROP, tiny_convnext),
    "ViT": case(ADVPROP, tiny_vit),
    **{
        rule.__name__: case(attacking(targets=rule))
        for rule in (untargeted, least_likely_class, given)
    },
    **{
        name: case(ADVPROP, settings={"optimizer": name})
        for name in ("lamb", "rmsproptf", "lion", "adan", "lars")
    },
}
PRECISIONS = ["bf16", *(pytest.param(name, marks=pytest.mark.full) for name in ("no", "fp16"))]


def check_waits(each: list[Findings], precision: str) -> None:
    named = WAITS | (FP16_WAITS if precision == "fp16" else {})
    for number, found in enumerate(each):
        unnamed = {what: times for what, times in found.waits.items() if what not in named}
        assert not unnamed, f"step {number} waits for the device, (what, where): {unnamed}"


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", METHODS)
def test_a_step_stays_on_the_device(name: str, precision: str, tmp_path: Path) -> None:
    each = steps(CASES[name], precision, tmp_path)
    check_waits(each, precision)
    if precision == "bf16":
        check_figures(name, each[-1])


def check_figures(name: str, found: Findings) -> None:
    """Launches outside passes and waits, of a step that is not the first, if `FIGURES` has some."""
    figures = {"launches": found.outside.total(), "waits": found.waits.total()}
    wanted = json.loads(FIGURES.read_text()).get(name)
    lines = "\n".join(f"{times:5} {line}" for line, times in found.outside.most_common(12))
    told = f'launches.json has {wanted}, a step asks for "{name}": {json.dumps(figures)}\n{lines}'
    if wanted is None:
        return
    assert figures["waits"] == wanted["waits"], told
    assert figures["launches"] == pytest.approx(wanted["launches"], rel=TOLERANCE), told


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", VARIANTS)
def test_variants_stay_on_the_device(name: str, precision: str, tmp_path: Path) -> None:
    check_waits(steps(VARIANTS[name], precision, tmp_path, count=1), precision)


def test_images_are_sent_in_bytes(tmp_path: Path) -> None:
    (found,) = steps(CASES["vanilla"], "bf16", tmp_path, count=1)
    assert found.sent[torch.uint8] == 8 * 3 * 32 * 32
    assert found.sent[torch.float32] < 100  # a few numbers that a step is told
    (soft,) = steps(replace(CASES["vanilla"], soft=True), "bf16", tmp_path, count=1)
    assert not soft.sent[torch.uint8]


NEEDS: dict[str, tuple[Callable[[PerturbationStore], Any], int]] = {
    "read in a later epoch": (lambda store: store.read(torch.arange(2), 4), 4),
    "read without epochs": (lambda store: store.read(torch.arange(2), None), 4),
    "the next write": (
        lambda store: store.write(torch.arange(2), numbers(2, 1, 2, 2), 3),
        4,
    ),
    "a checkpoint": (lambda store: store.state_dict(), 4),
    "another state": (lambda store: store.load_state_dict(store_of(4).state_dict()), 0),
}


@pytest.mark.parametrize("name", NEEDS)
def test_what_is_carried_is_held_back_until_it_is_needed(name: str) -> None:
    need, num_written = NEEDS[name]
    with fake_cuda() as found:
        store, images = store_of(4), torch.arange(2)
        store.write(images + 2, numbers(2, 1, 2, 2), 3)  # the next write settles it
        store.write(images, numbers(2, 1, 2, 2), 3)
        assert store.read(images, 3)[1].tolist() == [0, 1]  # its own epoch does not need it
        assert store._entries.extent()["written"] == 2
        need(store)
        assert store._entries.extent()["written"] == num_written
    assert not found.waits


def test_what_processes_share_is_not_held_back() -> None:
    with fake_cuda() as found:
        store = store_of(2, shared=True)
        store.write(torch.arange(2), numbers(2, 1, 2, 2), 3)
        assert store._entries.extent()["written"] == 2
    assert list(found.waits.values()) == [1]


def store_of(count: int, *, shared: bool = False) -> PerturbationStore:
    return PerturbationStore(num_images=count, shape=(1, 2, 2), epsilon=0.1, shared=shared)


@pytest.mark.full
@pytest.mark.parametrize("precision", ["bf16", "no", "fp16"])
@pytest.mark.parametrize("name", MORE_VARIANTS)
def test_more_variants_stay_on_the_device(name: str, precision: str, tmp_path: Path) -> None:
    check_waits(steps(MORE_VARIANTS[name], precision, tmp_path), precision)


def numbers(*shape: int) -> Tensor:
    return torch.rand(shape, device=DEVICE)


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "item": (lambda: numbers().item(), "item"),
    "condition": (lambda: bool(numbers() > 0.5), "item"),
    "list": (lambda: numbers(3).tolist(), "copy to cpu"),
    "read by a boolean mask": (lambda: numbers(3)[numbers(3) > 0.5], "boolean mask"),
    "mask of pixels": (lambda: numbers(3, 2, 2)[:, numbers(2, 2) > 0.5], "boolean mask"),
    "written by a boolean mask": (
        lambda: numbers(3).index_put_((numbers(3) > 0.5,), numbers(3)),
        "boolean mask",
    ),
    "nonzero": (lambda: (numbers(3) > 0.5).nonzero(), "nonzero"),
    "index on the CPU": (lambda: numbers(3)[torch.arange(2)], "index on the CPU"),
    "copy to the CPU": (lambda: numbers(3).cpu(), "copy to cpu"),
    "copy into the CPU's": (lambda: torch.zeros(3).copy_(numbers(3)), "copy to cpu"),
    "copy to the device": (lambda: torch.zeros(3).to(DEVICE), "copy to cuda"),
    "number to the device": (lambda: torch.tensor([2.0], device=DEVICE), "copy to cuda"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_waits_are_found(name: str) -> None:
    fault, kind = FAULTS[name]
    with fake_cuda() as found:
        fault()
    assert list(found.waits) == [(kind, "training_on_fake_cuda.py:<lambda>")]


def test_a_method_that_waits_is_named(tmp_path: Path) -> None:
    class Waiting(Vanilla):
        def step(self, model: nn.Module, batch: Batch, context: Context) -> StepMetrics:
            assert batch.images.max() > 0
            return super().step(model, batch, context)

    each = steps(case(Waiting()), "bf16", tmp_path, count=1)
    with pytest.raises(AssertionError, match=r"step 0 waits .*'item', 'training/learner.py:gradie"):
        check_waits(each, "bf16")


def test_what_does_not_wait_is_no_wait() -> None:
    with fake_cuda() as found:
        values = torch.rand(3, 3).to(DEVICE, non_blocking=True)
        values = values.masked_fill(values > 0.5, 0.0)[values.argmax(dim=0)]
        values.where(values > 0.5, torch.zeros((), device=DEVICE)).add_(torch.tensor(2.0))
        assert torch.rand(3).tolist()  # the CPU's own are real
    assert not found.waits


def test_tensors_of_two_devices_are_found() -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match="cuda:0 and cpu"):
        numbers(3) + torch.rand(3)


@pytest.mark.parametrize(("device", "of"), [(DEVICE, "cpu"), ("cpu", DEVICE)])
def test_generators_of_the_wrong_device_are_found(device: Any, of: Any) -> None:
    with fake_cuda(), pytest.raises(RuntimeError, match=r"a generator on \w+ for a tensor on"):
        torch.rand(3, device=device, generator=torch.Generator(of))


@pytest.mark.parametrize("device", [DEVICE, "cpu"])
def test_generators_of_the_right_device_are_taken(device: Any) -> None:
    with fake_cuda():
        torch.rand(3, device=device, generator=torch.Generator(device))


def test_launches_are_counted_inside_and_outside_passes() -> None:
    with fake_cuda() as found:
        model, images = nn.Linear(3, 3).to(DEVICE), numbers(2, 3)
        found.watch(model)
        found.clear()
        output = model(images)  # one kernel
        assert (found.launches, found.outside.total()) == (1, 0)
        total = output.view(-1)[1:].sum()  # one, since a view has none
        assert list(found.outside) == [
            f"training_on_fake_cuda.py:test_launches_are_counted_inside_and_outside_passes:{LINE}"
        ]
        total.backward()
        assert found.launches > 4
        assert found.outside.total() == 2  # the gradient that the backward pass begins with


LINE = next(
    number
    for number, line in enumerate(Path(__file__).read_text().splitlines(), start=1)
    if "total = output" in line
)


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("no", torch.float32)])
def test_precision_is_that_of_the_settings(
    precision: str, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = set()
    plain = nn.Conv2d.forward

    def forward(layer: nn.Conv2d, images: Tensor) -> Tensor:
        output = plain(layer, images)
        seen.add(output.dtype)
        return output

    monkeypatch.setattr(nn.Conv2d, "forward", forward)
    steps(CASES["vanilla"], precision, tmp_path, count=1)
    assert seen == {dtype}
