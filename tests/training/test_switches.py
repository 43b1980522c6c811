"""Settings that are global switches of torch, and what is refused under them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from run_folders import weights_of
from torch import nn
from torch.backends import cuda, cudnn

from advprop.config.overrides import apply_overrides, read_config
from advprop.config.run import RunConfig
from advprop.recipes.builtin import digits
from advprop.runs import train
from advprop.training.engine import build_accelerator, distribute
from advprop.training.settings import TrainingSettings
from advprop.training.switches import torch_switches

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings(num_epochs=1, batch_size=4, **changes)


def switches() -> dict[str, object]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": cudnn.benchmark,
        "matmul": cuda.matmul.allow_tf32,
        "convolutions": cudnn.allow_tf32,
    }


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = switches()
    monkeypatch.setenv(CUBLAS, ":4096:8")  # is put back
    monkeypatch.delenv(CUBLAS)
    yield
    assert switches() == before


@pytest.mark.parametrize(
    ("given", "changed"),
    [
        ({}, {}),
        ({"deterministic": True}, {"deterministic": True}),
        ({"cudnn_benchmark": True}, {"benchmark": True}),
        ({"tf32": True}, {"matmul": True, "convolutions": True}),
        ({"tf32": False}, {"matmul": False, "convolutions": False}),
    ],
    ids=str,
)
def test_switches_are_on_inside_and_back_after(
    given: dict[str, bool], changed: dict[str, bool]
) -> None:
    before = switches()
    with torch_switches(settings(**given)):
        assert switches() == before | changed
    assert switches() == before
    with pytest.raises(KeyError), torch_switches(settings(**given)):
        raise KeyError
    assert switches() == before


def test_a_callers_own_switches_stay_and_come_back() -> None:
    cudnn.benchmark = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        with torch_switches(settings()):
            assert cudnn.benchmark
            assert torch.are_deterministic_algorithms_enabled()
        with torch_switches(settings(deterministic=True)):
            assert not cudnn.benchmark
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert cudnn.benchmark
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        cudnn.benchmark = False
        torch.use_deterministic_algorithms(False)


def test_cublas_is_told_before_cuda_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch_switches(settings()):
        assert CUBLAS not in os.environ
    with torch_switches(settings(deterministic=True)):
        assert os.environ[CUBLAS] == ":4096:8"
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    with torch_switches(settings(deterministic=True)):  # a second run of the same process
        pass
    monkeypatch.delenv(CUBLAS)
    refused = r"\(none\) after CUDA has started: start Python with CUBLAS_WORKSPACE_CONFIG=:4096:8"
    with pytest.raises(ValueError, match=refused), torch_switches(settings(deterministic=True)):
        pass
    monkeypatch.setenv(CUBLAS, ":0:0")
    with (
        pytest.raises(ValueError, match="CUBLAS_WORKSPACE_CONFIG=:0:0: start"),
        torch_switches(settings(deterministic=True)),
    ):
        pass


def test_torchs_refusal_names_the_operation_and_the_setting() -> None:
    """torch has one such operation on the CPU too."""
    refused = r"training.deterministic: put_ has no .*take a model or method without it"
    with pytest.raises(ValueError, match=refused), torch_switches(settings(deterministic=True)):
        torch.zeros(4).put_(torch.tensor([1, 1]), torch.ones(2))
    with pytest.raises(RuntimeError, match="mine"), torch_switches(settings(deterministic=True)):
        raise RuntimeError("mine")
    with pytest.raises(ValueError, match="cuBLAS had started"), torch_switches(settings()):
        raise RuntimeError("this operation is not deterministic because it uses CuBLAS and ...")


def test_two_choices_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match=r"deterministic and cudnn_benchmark.*one of them"):
        settings(deterministic=True, cudnn_benchmark=True)


def run_of(*changes: str, method: str = "advprop") -> RunConfig:
    base = ["training.num_epochs=1", "data.num_train=40", "training.batch_size=20"]
    return apply_overrides(digits().with_method(method), [*base, *changes])


def test_a_run_on_a_cpu_is_deterministic_anyway(tmp_path: Path) -> None:
    """The same bits, in one process, with the setting and without; it is recorded."""
    for name, on in (("without", "false"), ("with", "true"), ("after", "false")):
        train(run_of(f"training.deterministic={on}"), tmp_path / name, quiet=True)
        weights = weights_of(tmp_path / name)
        first = weights_of(tmp_path / "without")
        assert all(torch.equal(weights[key], first[key]) for key in first)
    assert read_config(tmp_path / "with" / "config.json").training.deterministic


def test_a_run_has_its_switches_while_it_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    fit = "advprop.training.trainer.Trainer.train_step"
    monkeypatch.setattr(fit, lambda *_: seen.append(switches()) or 1 / 0)
    for on in ("true", "false"):
        with pytest.raises(ZeroDivisionError):
            train(run_of(f"training.tf32={on}"), tmp_path / on, quiet=True)
    assert [found["matmul"] for found in seen] == [True, False]
    assert [found["convolutions"] for found in seen] == [True, False]


@pytest.mark.parametrize("mode", [True, "max-autotune", "reduce-overhead"], ids=str)
def test_a_model_is_compiled_in_the_mode_that_is_set(
    monkeypatch: pytest.MonkeyPatch, mode: bool | str
) -> None:
    given = []
    monkeypatch.setattr(nn.Module, "compile", lambda _, **options: given.append(options))
    chosen = replace(settings(), compile=mode)
    distribute(nn.Linear(2, 2), chosen, build_accelerator(chosen))
    assert given == [{"mode": None if mode is True else mode}]


@pytest.mark.parametrize("value", ["fastest", "default", "2"])
def test_modes_that_torch_has_not_are_refused(value: str) -> None:
    with pytest.raises(ValueError, match=r"training\.compile"):
        run_of(f"training.compile={value}")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ([], None),
        (
            ["training.compile=max-autotune", "training.mixed_precision=bf16"],
            "computation: bf16, compiled (max-autotune)",
        ),
        (
            ["training.deterministic=true", "training.tf32=false", "training.compile=true"],
            "computation: compiled, no TF32, deterministic",
        ),
        (
            ["training.cudnn_benchmark=true", "training.sync_batchnorm=false"],
            "computation: cuDNN benchmark, no SyncBatchNorm",
        ),
    ],
    ids=["defaults", "compiled", "deterministic", "trial"],
)
def test_what_differs_from_the_defaults_is_said_first(changes: list[str], line: str | None) -> None:
    assert run_of(*changes).start_lines(None)[1:] == ([line] if line else [])


# --- what accelerate's launcher asks for


@pytest.mark.parametrize(
    ("name", "plugin"),
    [
        ("ACCELERATE_USE_FSDP", "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "a model divided over devices"),
    ],
)
def test_what_shards_a_model_is_refused_by_name(
    name: str, plugin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in ("false", "False", "0", ""):
        monkeypatch.setenv(name, value)
        build_accelerator(settings())
    monkeypatch.setenv(name, "True")
    with pytest.raises(ValueError, match=f"{name}=True: {plugin} does not work here yet.*unset"):
        build_accelerator(settings())


@pytest.mark.parametrize(
    ("name", "idle", "value", "setting"),
    [
        ("ACCELERATE_MIXED_PRECISION", "no", "bf16", "mixed_precision is no"),
        ("ACCELERATE_DYNAMO_BACKEND", "NO", "inductor", "compile is False"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1", "4", "gradient_accumulation is 1"),
    ],
)
def test_settings_of_the_launcher_are_not_those_of_a_run(
    name: str, idle: str, value: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, idle)
    build_accelerator(settings())
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}={value}, but training.{setting}: .*unset {name}"):
        build_accelerator(settings())


def test_the_same_precision_may_be_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert build_accelerator(settings(mixed_precision="bf16")).mixed_precision == "bf16"
