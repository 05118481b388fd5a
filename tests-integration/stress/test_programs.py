"""Programs that are drawn from seeds, on real clusters whose workers are killed meanwhile: each ends as it must."""

from __future__ import annotations

import os
import random
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import pytest
from riverrun.task_runners import DaskTaskRunner, RayTaskRunner
from riverrun.testing import check_program, drawn_program, within

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psutil

pytestmark = [
    pytest.mark.stress,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL"),
]

PROGRAMS = int(os.environ.get("STRESS_PROGRAMS", "100"))
"""How many programs for each cluster and seed."""
LOSSES = 2
"""How often a run may be lost with its worker."""
MOST_KILLS = 3
"""For each program: a cluster whose workers die all the time runs nothing."""
BETWEEN = 3.0
"""Seconds between two kills, at most."""
LIMIT = 120
"""Seconds after which a program hangs."""


class Killer:
    """Kills a worker now and then, a few times, as long as the context lasts.

    Args:
        rng: decides when, and which one.
        workers: gives the processes that may be killed.
    """

    def __init__(self, rng: random.Random, workers: Callable[[], list[psutil.Process]]) -> None:
        self.kills = 0
        self._rng = rng
        self._workers = workers
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._kill)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _kill(self) -> None:
        import psutil

        for _ in range(self._rng.randint(0, MOST_KILLS)):
            if self._over.wait(self._rng.uniform(0, BETWEEN)):
                return
            workers = sorted(self._workers(), key=lambda process: process.pid)
            if workers:
                self.kills += 1
                with suppress(psutil.NoSuchProcess):
                    self._rng.choice(workers).kill()


def found_by(seed: int, runner: Any, workers: Callable[[], list[psutil.Process]]) -> Iterator[str]:
    """Run the programs; give what was wrong."""
    for number in range(seed * 1_000_000, seed * 1_000_000 + PROGRAMS):
        program = drawn_program(number)
        with Killer(random.Random(f"kills {number}"), workers) as killer:
            # One that is killed at the end of a program may be missed at the beginning of the next.
            kills = 2 * MOST_KILLS
            result = within(LIMIT, lambda: check_program(program, task_runner=runner, kills=kills, losses=LOSSES))  # noqa: B023
        if result.violations:
            yield f"program {number}, {killer.kills} kills: {result}"


def test_programs_on_a_dask_cluster_whose_workers_are_killed(dask_address: Any, workers_of: Any, seed: int):
    address, pid = dask_address
    runner = DaskTaskRunner(address=address, max_worker_losses=LOSSES)
    found = list(found_by(seed, runner, lambda: workers_of(pid, address)))
    assert not found, "\n".join(found)


def test_programs_on_a_ray_cluster_whose_workers_are_killed(ray_address: Any, workers_of: Any, seed: int):
    address, pid = ray_address
    runner = RayTaskRunner(address=address, max_worker_losses=LOSSES)
    found = list(found_by(seed, runner, lambda: workers_of(pid)))
    assert not found, "\n".join(found)
