"""What torchrun does, for processes that are forked where torch and timm are imported already.

A launch by the command costs fifteen seconds of imports, one in this way next to none.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkProcess
from pathlib import Path

from accelerate.state import AcceleratorState
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

PATIENCE = 240
"""Seconds after which a process is ended."""
_IMPORTED = ["advprop.cli.main", "advprop.runs", "advprop.recipes.builtin", "advprop.suites"]


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
        # a shell's job in the background, which the tests may be, ignores Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        warnings.resetwarnings()
        AcceleratorState._reset_state(reset_partial_state=True)
        function(*arguments)

    process = multiprocessing.get_context("fork").Process(target=begin, daemon=True)
    process.start()
    return process


def launched(
    arguments: list[str], *, processes: int = 2, max_restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    """`torchrun --standalone --nproc_per_node PROCESSES ARGUMENTS`, and what they all printed."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(_IMPORTED)
    with tempfile.TemporaryDirectory() as folder, _signals_restored():
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=str(uuid.uuid4()),
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=max_restarts,
            start_method="forkserver",
            logs_specs=DefaultLogsSpecs(log_dir=folder, redirects=Std.ALL),
        )
        code = 0
        try:
            elastic_launch(config, _run)(arguments)
        except ChildFailedError:
            code = 1
        out, err = (
            "".join(path.read_text() for path in sorted(Path(folder).rglob(name)))
            for name in ("stdout.log", "stderr.log")
        )
    return subprocess.CompletedProcess(arguments, code, out, err)


def _run(arguments: list[str]) -> None:
    """Be a new process with these arguments to Python: `-m MODULE ...` or `SCRIPT ...`."""
    signal.alarm(PATIENCE)
    is_module = arguments[0] == "-m"
    sys.argv = arguments[1:] if is_module else arguments
    try:
        if is_module:
            runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
        else:
            sys.path.insert(0, str(Path(sys.argv[0]).parent))
            runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


@contextmanager
def _signals_restored() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
    before = {number: signal.getsignal(number) for number in numbers}
    environment = dict(os.environ)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.environ.clear()
        os.environ.update(environment)
