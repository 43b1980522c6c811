"""The command `advprop`: its subcommands, and the handling of errors."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import sys
import warnings
from typing import Annotated, Any

import typer

from advprop.cli import compare, evaluate, export, plan, predict, recipes, report, shards, train
from advprop.cli.options import process_number, say

app = typer.Typer(
    name="advprop",
    help="Train image classifiers that get better because they also learn from adversarial "
    "examples.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (recipes, plan, train, evaluate, compare, report, export, predict, shards):
    app.command(name=command.__name__.rpartition(".")[2])(command.main)


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"advprop {importlib.metadata.version('advprop')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


def run() -> None:
    """Run the command line; a user's error gives one message and exit code 2, without traceback."""
    _let_waiting_threads_sleep()
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app(args=[_with_home(word) for word in sys.argv[1:]])
    except (KeyboardInterrupt, SystemExit) as end:
        if getattr(end, "code", 130) != 130:  # typer makes this code of Ctrl-C
            raise
        _end("interrupted; what was finished is kept", 130)
    except (ValueError, OSError, ImportError) as error:
        _end(str(error), 2)
    except RuntimeError as error:
        from advprop.training.stopping import out_of_memory

        if (message := out_of_memory(error)) is not None:
            _end(message, 2)
        code = getattr(error, "exit_code", None)
        if code is None:
            raise
        _end("; ".join([str(error), *getattr(error, "__notes__", [])]), code)


def _let_waiting_threads_sleep() -> None:
    """Set the waiting policy of torch's OpenMP before it is loaded, unless the user has set it.

    Waiting threads that spin take cores from working threads: on a busy machine a step took five
    times as long. The number of threads, and so the results, stay the same.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _with_home(word: str) -> str:
    """Expand "~" at the start of `word` and after "=", where shells do not."""
    return re.sub(r"(?<![^=])~(?=/|$)", lambda _: os.path.expanduser("~"), word)


def _terminate(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


def _end(message: str, code: int) -> None:
    rank = process_number()
    process = "" if rank == "0" else f" (process {rank})"
    say(f"advprop{process}: {message}", err=True)
    sys.stdout.flush()
    # loader workers and pools of an interrupted run must not keep the process alive
    os._exit(code) if code == 130 else sys.exit(code)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    say(f"advprop: warning: {message}", err=True)
