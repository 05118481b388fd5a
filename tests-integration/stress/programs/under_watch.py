"""What each program of these tests does first: it can be asked for its stacks, and leaves marks of how far it has come.

`python PROGRAM RUNNER SEED FOLDER [ADDRESS]` is how a test starts one, and how it can be started by hand.
"""

from __future__ import annotations

import faulthandler
import json
import random
import signal
import sys
from pathlib import Path
from typing import Any

RUNNER, SEED, FOLDER = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
ADDRESS = sys.argv[4] if len(sys.argv) > 4 else None

TWO_WORKERS = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
TWO_THREADS = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": "127.0.0.1:0"}
START_TIMEOUT = 120
"""Seconds; others want the processors, too."""

ENDS_WITHIN = 900
"""Seconds; longer than any test waits: it is for a program whose test is gone."""

faulthandler.dump_traceback_later(ENDS_WITHIN, exit=True)
faulthandler.register(signal.SIGUSR1, all_threads=True)  # how a test asks one that hangs where it is


def mark(name: str) -> None:
    """Say how far the program has come."""
    (FOLDER / name).touch()


def lots() -> random.Random:
    """Give the source of all that this program draws."""
    return random.Random(f"{Path(sys.argv[0]).stem} {SEED}")


def write(name: str, what: Any) -> None:
    """Write something down for the test; it is there as a whole, or not at all."""
    unfinished = FOLDER / f"{name}.unfinished"
    unfinished.write_text(json.dumps(what), encoding="utf-8")
    unfinished.rename(FOLDER / name)


def made_runner(**options: Any) -> Any:
    """Make the task runner that this program was started with."""
    from riverrun import task_runners

    if RUNNER == "sequential":
        return task_runners.SequentialTaskRunner()
    if RUNNER == "concurrent":
        return task_runners.ConcurrentTaskRunner(max_workers=4)
    options["start_timeout"] = START_TIMEOUT
    if RUNNER == "ray":
        # A start that a signal has given up is waited for as the process ends, for 5 seconds; then it would outlive it.
        from runner_ray import _keeper  # noqa: PLC2701 - it has no public option for a busy machine

        _keeper.EXIT_WITHIN = float(START_TIMEOUT)
        return task_runners.RayTaskRunner(init_kwargs={"num_cpus": 2}, **options)
    if ADDRESS is not None:
        return task_runners.DaskTaskRunner(address=ADDRESS, **options)
    kwargs = {"dask-processes": TWO_WORKERS, "dask-threads": TWO_THREADS}[RUNNER]
    return task_runners.DaskTaskRunner(cluster_kwargs=kwargs, **options)


mark("began")
