"""Schedulers, workers and scripts as processes of their own, on loopback, under time limits, ended by their id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from multiprocessing.util import get_temp_dir
from textwrap import dedent
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import distributed

# Dask is imported on demand: it looks at the handlers of the root logger when it is, and pytest's are there later only.

LIMIT = 100
"""How long anything may take before it counts as a hang, in seconds; no test judges by it."""


def eventually(condition: Callable[[], object], what: str, limit: float = LIMIT):
    """Wait until a condition is true; give its value."""
    end = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {limit} s: {what}"
        time.sleep(0.02)
    return value


class Processes:
    """Processes that a test has started: each in a group of its own, all of them gone after the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, env: dict[str, str] | None = None, **options) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env={**os.environ, "RIVERRUN_LOG_LEVEL": "INFO", "TMPDIR": str(self.folder), **(env or {})},
            **{"stdin": subprocess.DEVNULL, **options},
            start_new_session=True,
            text=True,
        )
        self._started.append(process)
        return process

    def end(self):
        for process in self._started:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def processes(tmp_path) -> Iterator[Processes]:
    processes = Processes(tmp_path)
    yield processes
    processes.end()


COUNT = """
from pathlib import Path

from distributed import SchedulerPlugin

class Count(SchedulerPlugin):
    def write(self, scheduler):
        file = Path(FILE)
        file.with_suffix(".new").write_text(str(len(scheduler.workers)))
        file.with_suffix(".new").rename(file)

    def add_worker(self, scheduler, worker):
        self.write(scheduler)

    def remove_worker(self, scheduler, worker, *, stimulus_id="", **kwargs):
        self.write(scheduler)

def dask_setup(scheduler):
    scheduler.add_plugin(Count())
"""
"""What a scheduler preloads that keeps the number of its workers in a file: asking it needs no client."""


class DaskCluster:
    """A scheduler, and as many workers as a test starts."""

    def __init__(self, processes: Processes, *options: str) -> None:
        self._processes = processes
        self.folder = processes.folder / "dask"
        self.folder.mkdir(exist_ok=True)
        self.options = options
        file, counting, self._count = (self.folder / name for name in ("scheduler.json", "counting.py", "count"))
        counting.write_text(COUNT.replace("FILE", repr(str(self._count))))
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file),
            "--preload", str(counting),
        )  # fmt: skip
        self.address: str = eventually(lambda: file.exists() and file.read_text() and json.loads(file.read_text()),
                                       "the scheduler has started")["address"]  # fmt: skip

    def start_worker(self, *options: str) -> subprocess.Popen[str]:
        return self._start("worker", self.address, "--host", "127.0.0.1", "--no-dashboard", "--nthreads", "2",
                           "--no-nanny", "--local-directory", str(self.folder), *options)  # fmt: skip

    def wait_for_workers(self, number: int) -> None:
        """Wait until so many workers are there, also after a test that killed one."""
        there = str(number)
        eventually(lambda: self._count.exists() and self._count.read_text() == there, f"{there} workers are there")

    def _start(self, *arguments: str) -> subprocess.Popen[str]:
        log = (self.folder / f"{arguments[0]}.log").open("a")
        with log:
            return self._processes.start("-m", "dask", *arguments, *self.options, stdout=log, stderr=log)


@pytest.fixture
def dask_scheduler(processes) -> DaskCluster:
    """A scheduler without workers."""
    return DaskCluster(processes)


@pytest.fixture
def dask_cluster(dask_scheduler) -> DaskCluster:
    """A scheduler and a worker with two threads."""
    dask_scheduler.start_worker()
    return dask_scheduler


class SharedDaskCluster(DaskCluster):
    """A scheduler and two workers with one thread each, whose nannies start them again."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes)
        self.start_worker("--nanny", "--nworkers", "2", "--nthreads", "1")
        self.wait_for_workers(2)  # from now on, none appears while a test looks at what it leaves behind


@pytest.fixture(scope="session")
def session_dask_cluster(tmp_path_factory) -> Iterator[SharedDaskCluster]:
    processes = Processes(tmp_path_factory.mktemp("shared"))
    try:
        yield SharedDaskCluster(processes)
    finally:
        processes.end()


@pytest.fixture
def shared_dask_cluster(session_dask_cluster) -> Iterator[SharedDaskCluster]:
    """A cluster for all tests: what a test kills there is there again when the next one begins."""
    session_dask_cluster.wait_for_workers(2)
    yield session_dask_cluster
    session_dask_cluster.wait_for_workers(2)  # a worker that comes later would be taken for what another test left


TWO_BY_NAME = {"one": {"process": 1, "slot": 2}, "two": {"slot": 2}}
"""The names of the workers of `local_cluster`, and the resources that each declares."""


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[distributed.LocalCluster]:
    """A cluster object for all tests that kill nothing: two processes with two threads each, `one` and `two`."""
    import distributed

    with distributed.LocalCluster(n_workers=0, threads_per_worker=2, dashboard_address="127.0.0.1:0") as cluster:
        spec = cluster.new_worker_spec()[0]
        for name, resources in TWO_BY_NAME.items():
            options = {**spec["options"], "nthreads": 2, "resources": resources}
            cluster.worker_spec[name] = {**spec, "options": options}
        cluster.sync(cluster._correct_state)
        eventually(lambda: len(cluster.scheduler.workers) == 2, "both workers are there")
        yield cluster


class ForkedCluster:
    """The cluster of a flow run, kept for several: its nannies start what is killed again, within half a second."""

    def __init__(self, cluster: distributed.LocalCluster, workers: int) -> None:
        self.cluster = cluster
        self.workers = workers

    def wait_for_workers(self) -> None:
        """Wait until all workers are there, also after a test that killed one."""
        eventually(self._are_there, "all workers are there")

    def _are_there(self) -> bool:
        states = [worker.status.name for worker in list(self.cluster.scheduler.workers.values())]
        return states == ["running"] * self.workers


@pytest.fixture(scope="module")
def forked_clusters() -> Iterator[Callable[[int], ForkedCluster]]:
    """Give a cluster of two workers with so many threads each, to all tests of a module that ask for it."""
    import dask
    from runner_dask import DaskTaskRunner
    from runner_dask._clusters import opened

    with ExitStack() as stack:
        # 15 seconds after a worker has died, Dask looks whether it is there again, and closes its nanny if not; one
        # that another test has killed just then would be gone for good.
        stack.enter_context(dask.config.set({"distributed.deploy.lost-worker-timeout": "1 hour"}))
        made: dict[int, ForkedCluster] = {}

        def with_threads(threads: int) -> ForkedCluster:
            if threads not in made:
                kwargs = {"n_workers": 2, "threads_per_worker": threads, "dashboard_address": "127.0.0.1:0"}
                runner = DaskTaskRunner(cluster_kwargs=kwargs, start_timeout=LIMIT)
                made[threads] = ForkedCluster(stack.enter_context(opened(runner)).cluster, 2)
            made[threads].wait_for_workers()
            return made[threads]

        yield with_threads


@pytest.fixture(scope="module")
def make_dask_cluster(tmp_path_factory) -> Iterator[Callable[..., DaskCluster]]:
    """Start a scheduler with options for it and for its workers, for all tests of a module."""
    processes = Processes(tmp_path_factory.mktemp("dask"))
    yield lambda *options: DaskCluster(processes, *options)
    processes.end()


@pytest.fixture
def run_script(processes, tmp_path):
    """Run a script to its end; give what it printed, or start it only."""

    def run(source: str, *arguments: str, name: str = "script.py", wait: bool = True, **options):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(source))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = processes.start(*(arguments or (str(file),)), **{**pipes, **options})
        if not wait:
            return process
        process.out, process.err = process.communicate(timeout=LIMIT)
        return process

    return run


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """The addresses on which a process and its descendants listen."""
    addresses = []
    for each in [process, *process.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            addresses += [(c.laddr.ip, c.laddr.port) for c in each.net_connections("inet") if c.status == "LISTEN"]
    return addresses


@pytest.fixture
def ports_in_use():
    """Tell on which addresses this process and its descendants listen."""
    return lambda: listening(psutil.Process())


def workers() -> set[psutil.Process]:
    """The descendants of this process that are workers of a cluster: children of its fork server."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            parent = child.parent()
            if parent is not None and parent.pid != os.getpid() and child.status() != psutil.STATUS_ZOMBIE:
                found.add(child)
    return found


@pytest.fixture
def worker_processes():
    """List the worker processes of temporary clusters that this test has started in this process."""
    before = workers()
    return lambda: workers() - before


@pytest.fixture
def nothing_left(tmp_path, monkeypatch):
    """After the test no worker, port or folder of a temporary cluster is left; the fork server may be."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    get_temp_dir()  # of multiprocessing, which makes it once for this process: not in there
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    ports, before = set(listening(psutil.Process())), workers()
    yield
    assert list(folder.glob("riverrun-dask-*")) == []
    eventually(lambda: not workers() - before, "no worker is left")
    eventually(lambda: not set(listening(psutil.Process())) - ports, "no port is left")  # of a process that just died


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually_empty(look: Callable[[], list[str]], what: str) -> None:
    """Wait until a look finds nothing; say what it found last if that does not come."""
    left: list[str] = []

    def is_empty():
        left[:] = look()
        return not left

    try:
        eventually(is_empty, what)
    except AssertionError as error:
        error.add_note(f"What was found last: {left}")
        raise


eventually.empty = eventually_empty


@pytest.fixture
def wait_until():
    return eventually
