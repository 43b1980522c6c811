"""Several processes of one run: exact resumption on any number, and how they meet."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from launching import forked, free_port, variables
from run_folders import weights_of
from tiny import Operations, tiny_net
from torch import nn

from advprop.auxiliary.surgery import add_auxiliary_norms
from advprop.cli.main import run
from advprop.config import RunConfig
from advprop.config.overrides import apply_overrides
from advprop.recipes.builtin import digits
from advprop.recipes.resolve import resolve_run
from advprop.runs import train
from advprop.training import processes
from advprop.training.checkpoint import Checkpoints
from advprop.training.position import Position
from advprop.training.processes import (
    LOST_AFTER,
    _check_own_gpu,
    average_statistics,
    join_processes,
)
from advprop.training.settings import TrainingSettings
from advprop.training.stopping import InterruptedTraining, Watch
from advprop.training.trainer import Trainer

END = 300.0
"""Seconds after which a process hangs: a busy machine takes long to do what takes it one."""


@pytest.fixture
def port() -> Iterator[int]:
    """One that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


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
        process.join(END)
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
                ("advprop_lean", 3, "advprop_lean", ["method.attacked_fraction=0.5"]),
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


def test_processes_that_read_answers_late_stop_at_the_same_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one gets a signal after step 2: all hear of it in step 3, and read it in step 4."""

    def watch(self: Watch, *arguments: object) -> None:
        whole(self, *arguments)
        self.reads_late = True  # as on GPUs

    whole = Watch.__init__
    monkeypatch.setattr(Watch, "__init__", watch)
    settings = ["data.num_train=48", "training.batch_size=8", "training.num_epochs=1"]
    config = apply_overrides(digits().with_method("vanilla"), settings)
    run_in_processes(2, config, tmp_path / "run", stop_after=2)
    newest = Checkpoints(tmp_path / "run" / "checkpoints").load_newest()
    assert newest is not None
    assert newest["position"]["step"] == 4


@pytest.mark.parametrize("minutes", [1, 3])
def test_the_clock_of_one_process_counts_for_all(
    monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    several = SimpleNamespace(num_processes=2, device=torch.device("cpu"))
    settings = TrainingSettings(num_epochs=1, batch_size=2, checkpoint_every_minutes=minutes)
    now = 0.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda flags, _: flags)
    watch = Watch(several, settings)
    now = 90.0
    watch.look(torch.tensor(0.5), Position(), signal.SIGTERM)
    assert watch.agreed(None) == (signal.SIGTERM, minutes == 1)
    watch.settle(nn.Linear(1, 1), Position())
    assert watch.agreed(None) == (signal.SIGTERM, False)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_a_lost_process_ends_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    """At once where its connections close, else when it has not answered for the stated time."""
    assert timedelta(minutes=10) == LOST_AFTER  # what docs/training.md states
    monkeypatch.setattr(processes, "LOST_AFTER", timedelta(seconds=3))
    reading, writing = os.pipe()
    monkeypatch.setattr("typer.echo", lambda text, **_: os.write(writing, text.encode()))
    small = ["training.batch_size=9", "data.num_train=63", "training.num_epochs=1"]
    options = [word for setting in small for word in ("--set", setting)]
    arguments = ["advprop", "train", "digits", "--quiet", *options, "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", arguments)

    def lose_the_second() -> None:
        def step(self: Trainer, *arguments: object) -> None:
            if self.position.step == 2 and os.environ["RANK"] == "1":
                os.kill(os.getpid(), how)
            whole_step(self, *arguments)

        whole_step, Trainer.train_step = Trainer.train_step, step
        run()

    port = free_port()
    ranks = [forked(lose_the_second, variables(3, rank, port)) for rank in range(3)]
    os.close(writing)
    for number in (0, 2):
        ranks[number].join(END)
    ranks[1].kill()
    ranks[1].join(END)
    assert [process.exitcode for process in ranks] == [4, -signal.SIGKILL, 4]
    said = os.read(reading, 10_000).decode()
    message = "another process of this run has ended, or did not answer for 10 minutes; go on"
    assert said.count(message) == 2


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
    said, more = "", b"."
    while more and "waits for all" not in said:  # others may come before, as of open sockets
        more = os.read(reading, 1000)
        said += more.decode()
    os.kill(process.pid, signum)
    process.join(END)
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
    process.join(END)
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
    with Operations() as called:
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
