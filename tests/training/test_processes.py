"""Several processes of one run: exact resumption on any number, and how they meet."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState
from operators import Operators
from run_folders import weights_of
from tiny import tiny_net
from torch import nn

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.cli.main import run
from advprop.config import RunConfig
from advprop.recipes.resolve import resolve_run
from advprop.runs import train
from advprop.training import processes
from advprop.training.processes import _check_own_gpu, average_statistics, join_processes
from advprop.training.stopping import InterruptedTraining
from advprop.training.trainer import Trainer


@pytest.fixture
def port() -> Iterator[int]:
    """One that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def variables(count: int, rank: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    numbers = {"WORLD_SIZE": count, "RANK": rank, "LOCAL_RANK": rank, "MASTER_PORT": port}
    return {"MASTER_ADDR": "127.0.0.1"} | {name: str(number) for name, number in numbers.items()}


def forked(function: Callable[..., None], environment: dict[str, str], *arguments) -> ForkProcess:
    """A process as torchrun starts them, but by fork: to import torch and timm takes seconds."""

    def begin() -> None:
        os.environ.update(environment)
        warnings.resetwarnings()
        AcceleratorState._reset_state(reset_partial_state=True)
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=begin, daemon=True)
    process.start()
    return process


def run_in_processes(
    count: int, config: RunConfig, folder: Path, *, stop_after: int | None = None
) -> None:
    """Train or go on; the first process gets SIGTERM when `stop_after` steps are done."""

    def go_on() -> None:
        def step(self: Trainer, *arguments: object) -> None:
            whole_step(self, *arguments)
            if self.position.step == stop_after and os.environ["RANK"] == "0":
                signal.raise_signal(signal.SIGTERM)

        whole_step, Trainer.train_step = Trainer.train_step, step
        with nullcontext() if stop_after is None else pytest.raises(InterruptedTraining):
            train(config, folder, resume=True, quiet=True)

    port = free_port()
    ranks = [forked(go_on, variables(count, rank, port)) for rank in range(count)]
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0


@pytest.mark.parametrize(
    ("count", "method", "settings"),
    [
        pytest.param(3, "advprop", ["method.attack.num_steps=1"], id="three"),
        pytest.param(1, "advprop", ["method.form=separate"], id="one"),
        *(
            pytest.param(count, method, settings, id=name, marks=pytest.mark.full)
            for name, count, method, settings in [
                ("two", 2, "advprop", []),
                ("four", 4, "advprop", []),
                ("summed", 3, "advprop", ["method.form=summed"]),
                ("accumulated", 3, "mixed", ["training.gradient_accumulation=2"]),
                ("fast", 3, "fast", ["method.attacked_fraction=0.5"]),
                ("carried", 3, "carried", []),
                ("pyramid", 4, "pyramid", ["training.mixed_precision=bf16"]),
                ("universal", 3, "universal", []),
            ]
        ),
    ],
)
def test_a_resumed_run_equals_an_undisturbed_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    method: str,
    settings: list[str],
) -> None:
    """With gradients of more than one bucket of DistributedDataParallel's: the first has 1 MB."""
    monkeypatch.setattr("advprop.runs.trainer.shared_accuracy", lambda *_, **__: 0.5)
    small = [f"training.batch_size={4 * count}", f"data.num_train={16 * count}"]
    size = ["model.options.width=48", "training.num_epochs=1"]
    config = resolve_run("digits", method=method, overrides=[*small, *size, *settings])
    run_in_processes(count, config, tmp_path / "whole")
    run_in_processes(count, config, tmp_path / "cut", stop_after=2)
    run_in_processes(count, config, tmp_path / "cut")
    whole, cut = (weights_of(tmp_path / name) for name in ("whole", "cut"))
    assert [name for name in whole if not torch.equal(whole[name], cut[name])] == []


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_process_that_waits_in_vain_says_so_and_can_be_ended(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    signum: int,
) -> None:
    reading, writing = os.pipe()
    arguments = ["advprop", "train", "digits", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(processes, "_SAY_AFTER_SECONDS", 0.1)
    monkeypatch.setattr("typer.echo", lambda text, **_: os.write(writing, text.encode()))
    process = forked(run, variables(2, 0, free_port()))
    os.close(writing)
    said = os.read(reading, 1000).decode()
    os.kill(process.pid, signum)
    process.join(20)
    assert process.exitcode == 128 + signum
    assert "warning: process 0 (RANK) waits for all 2 (WORLD_SIZE) to meet at 127.0.0.1" in said
    assert "30 minutes at most" in said
    assert "unset WORLD_SIZE to train in one process" in said


@pytest.mark.parametrize(
    "wrong",
    [
        {"WORLD_SIZE": "abc"},
        {"WORLD_SIZE": "0"},
        {"WORLD_SIZE": "-2"},
        {"RANK": "2"},
        {"RANK": "-1"},
        {"RANK": ""},
        {"LOCAL_RANK": ""},
        {"LOCAL_RANK": "x"},
        {"MASTER_ADDR": ""},
        {"MASTER_PORT": ""},
        {"MASTER_PORT": "70000"},
    ],
    ids=str,
)
def test_what_torchrun_would_not_say_is_refused_whole(
    monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    for name, value in (variables(2, 0, 29500) | wrong).items():
        monkeypatch.setenv(name, value)
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"{name}={value or '.none.'}.*Unset WORLD_SIZE") as error:
        join_processes(on_cpu=True)
    assert all(name in str(error.value) for name in variables(2, 0, 1))


@pytest.mark.parametrize(
    ("rank", "taken", "message"),
    [
        pytest.param(
            0, True, r"port of 127\.0\.0\.1:\d+ .* is in use: set MASTER_PORT", id="in use"
        ),
        pytest.param(0, False, "did not meet at .*: start all of them", id="first"),
        pytest.param(1, False, "did not meet at .*: start all of them", id="second"),
        pytest.param(1, True, r"did not meet at .*no answer within 2 seconds", id="no answer"),
    ],
)
def test_waiting_for_the_others_has_an_end(
    monkeypatch: pytest.MonkeyPatch, port: int, rank: int, taken: bool, message: str
) -> None:
    monkeypatch.setattr(processes, "_WAIT_AT_MOST", timedelta(seconds=2))
    for name, value in variables(2, rank, port if taken else free_port()).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=message):
        join_processes(on_cpu=True)


def test_variables_of_one_process_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int
) -> None:
    """Neither the port, which is in use, nor a RANK that somebody left behind."""
    monkeypatch.setattr("advprop.runs.trainer.shared_accuracy", lambda *_, **__: 0.5)
    config = resolve_run("digits", overrides=["data.num_train=20", "training.num_epochs=1"])
    environment = variables(1, 0, port) | {"RANK": "3"}
    process = forked(lambda: train(config, tmp_path / "run", quiet=True) and None, environment)
    process.join(60)
    assert process.exitcode == 0


def test_two_processes_with_one_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.current_device", lambda: 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for uuid, refused in (("other", False), ("same", True)):
        store = torch.distributed.HashStore()
        store.set("gpu of 1", f"{socket.gethostname()} same")
        monkeypatch.setattr(
            "torch.cuda.get_device_properties", lambda _, uuid=uuid: SimpleNamespace(uuid=uuid)
        )
        if refused:
            with pytest.raises(ValueError, match="2 processes have 1 GPUs, and each needs one"):
                _check_own_gpu(store, 0, 2)
        else:
            _check_own_gpu(store, 0, 2)


def mean_with_a_second_process(flat: torch.Tensor) -> None:
    """Stands in for the exchange: the other process has twice the numbers of this one."""
    flat *= 3


def test_statistics_of_all_branches_become_those_of_all_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", mean_with_a_second_process)
    model = add_auxiliary_norms(tiny_net(), separate="affine")  # both branches have one tensor
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with Operators() as called:
        average_statistics(SimpleNamespace(num_processes=2), model)
    for name, buffer in model.named_buffers():
        factor = 1.5 if "running_" in name else 1
        assert torch.equal(buffer, factor * before[name])
    changing = [name for name in called.names if name.endswith("_")]
    assert changing == ["mul_", "div_", "_foreach_copy_"]


@pytest.mark.parametrize(
    "net", [nn.SyncBatchNorm.convert_sync_batchnorm, lambda _: nn.Linear(2, 2)]
)
def test_statistics_that_agree_already_are_not_exchanged(
    net: Callable[[nn.Module], nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda _: pytest.fail("exchanged"))
    average_statistics(SimpleNamespace(num_processes=2), net(tiny_net()))
