"""Trains and tests several runs at a time, each in its own process, after checking all of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import torch

from advprop.comparisons.plan import Job
from advprop.comparisons.sources import RESULTS
from advprop.comparisons.step_costs import STEP_COSTS
from advprop.config.overrides import differences, read_config
from advprop.data.reading import UnreadableImageError
from advprop.files.atomic import check_no_file
from advprop.runs import train
from advprop.runs.facts import check_same_data, load_data
from advprop.runs.trainer import check_plain_model
from advprop.suites.recording import TEST, complete_run, is_run
from advprop.training.stopping import InterruptedTraining, error_of_run

RUNS, TRIALS = "runs", "trials"


def check_place(folder: Path) -> None:
    """Raise ValueError if `folder` holds anything but a comparison."""
    check_no_file(folder)
    known = any((folder / name).exists() for name in (RUNS, TRIALS, RESULTS, STEP_COSTS))
    if folder.is_dir() and any(folder.iterdir()) and not known:
        raise ValueError(f"{folder}: not empty, and not a comparison; give another --out")


def check_jobs(folder: Path, planned: Sequence[Job]) -> None:
    """Raise ValueError for anything that would stop every run, before the first one.

    These are a folder that is no comparison, runs with other settings in it, unusable data, a model
    that does not take them and, before the first run, initial weights that are missing or do not
    fit. Warns if the data have changed since a run was tested.
    """
    check_place(folder)
    kept = [job for job in planned if is_run(job.folder)]
    for job in kept:
        changed = differences(read_config(job.folder / "config.json"), job.config)
        if changed:
            raise ValueError(
                f"{job.folder}: a run with other settings; give another --out\n  "
                + "\n  ".join(changed.values())
            )
    first = planned[0].config
    data, facts = load_data(first)
    first.data.task(data, first.training.label_smoothing)  # refuses settings of the other task
    changes = {job.folder: check_same_data(job.folder, facts, data) for job in kept}
    for change in {c for run, own in changes.items() if (run / TEST).is_file() for c in own}:
        warnings.warn(
            f"{folder}: the data of some runs have changed ({change}); they are not tested again",
            stacklevel=3,
        )
    check_plain_model(first.model.without_weights() if kept else first.model, data)


def usable_threads() -> int:
    """Return the number of CPUs that this process may use, at most OMP_NUM_THREADS if set."""
    own = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    cpus = len(own)
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cpus, int(asked)) if asked.isdigit() and int(asked) else cpus


def threads_of_each(jobs: int) -> int:
    """Return the share of the CPU's threads that each of `jobs` processes has."""
    return max(1, usable_threads() // jobs)


def outcomes(planned: Sequence[Job], jobs: int) -> Iterator[tuple[Job, dict[str, Any] | Exception]]:
    """Yield each job with its row, or with the error that ended it, in the order of completion.

    `jobs` processes run at a time, each with its share of the threads; they are assigned this
    machine's GPUs in turn. If the iterator is closed early, they save and end. Raises OSError if a
    process is killed.
    """
    threads = threads_of_each(jobs)
    if jobs == 1:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for job in planned:
                yield job, _run_job(job)
        finally:
            torch.set_num_threads(before)  # the caller's process goes on
        return
    context = multiprocessing.get_context("spawn")  # forked threads may hang
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=context,
        initializer=_start_worker,
        initargs=(threads, os.getpid(), context.Value("i", 0)),
    )
    with pool:
        running = {pool.submit(_run_job, job): job for job in planned}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BrokenProcessPool as error:
            raise OSError(
                "a process that trains runs was killed, perhaps because memory ran out: the same "
                "command continues from what was saved; fewer jobs need less memory"
            ) from error
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.terminate()  # a worker that trains saves first
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _start_worker(threads: int, parent: int, started: Synchronized[int]) -> None:
    # Ctrl-C reaches the parent too, which ends its workers
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(threads)
    with started.get_lock():
        number = started.value
        started.value += 1
    _take_device(number)


def _take_device(number: int) -> None:
    """Select this worker's GPU, since every process starts with the first."""
    if torch.accelerator.is_available() and (count := torch.accelerator.device_count()) > 1:
        torch.accelerator.set_device_index(number % count)


def _end_with(parent: int) -> None:
    """Save and stop when the parent is gone, since a killed parent cannot end its workers."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


def _run_job(job: Job) -> dict[str, Any] | Exception:
    """Train and test a run; return its row, or an error that concerns this run only.

    Others, such as OSError (a full disk, missing data) and UnreadableImageError, concern all runs
    and are raised.
    """
    if job.error:
        return ValueError(job.error)
    try:
        result = train(job.config, job.folder, resume=True, quiet=True)
        return complete_run(job.folder) if job.tested else result
    except InterruptedTraining as error:
        _end_worker()
        if error.signum == signal.SIGINT:
            raise KeyboardInterrupt from None
        raise SystemExit(error.exit_code) from None
    except UnreadableImageError:
        raise
    except (ValueError, RuntimeError) as error:
        own = error_of_run(error)
        if own is None:
            raise
        return own


def _end_worker() -> None:
    """Exit if this is a worker, since the pool may have assigned it further jobs already."""
    if multiprocessing.parent_process() is not None:
        os._exit(128 + signal.SIGTERM)
