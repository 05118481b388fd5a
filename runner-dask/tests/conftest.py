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
from contextlib import suppress
from textwrap import dedent
from typing import TYPE_CHECKING

import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 30
"""How long anything may take before it counts as a hang, in seconds."""


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


class DaskCluster:
    """A scheduler, and as many workers as a test starts."""

    def __init__(self, processes: Processes, *options: str) -> None:
        self._processes = processes
        self.folder = processes.folder / "dask"
        self.folder.mkdir(exist_ok=True)
        self.options = options
        file = self.folder / "scheduler.json"
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)
        )
        self.address: str = eventually(lambda: file.exists() and file.read_text() and json.loads(file.read_text()),
                                       "the scheduler has started")["address"]  # fmt: skip

    def start_worker(self, *options: str) -> subprocess.Popen[str]:
        return self._start("worker", self.address, "--host", "127.0.0.1", "--no-dashboard", "--nthreads", "2",
                           "--no-nanny", "--local-directory", str(self.folder), *options)  # fmt: skip

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


@pytest.fixture(scope="class")
def shared_dask_cluster(tmp_path_factory) -> Iterator[DaskCluster]:
    """A scheduler and two workers with one thread each, whose nannies start them again: for all tests of a class."""
    processes = Processes(tmp_path_factory.mktemp("shared"))
    cluster = DaskCluster(processes)
    cluster.start_worker("--nanny", "--nworkers", "2", "--nthreads", "1")
    yield cluster
    processes.end()


@pytest.fixture
def make_dask_cluster(processes) -> Callable[..., DaskCluster]:
    """Start a scheduler with options for it and for its workers."""
    return lambda *options: DaskCluster(processes, *options)


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


def workers() -> list[psutil.Process]:
    """The descendants of this process that are workers of a cluster: children of its fork server."""
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if child.parent().pid != os.getpid() and child.status() != psutil.STATUS_ZOMBIE:
                found.append(child)
    return found


@pytest.fixture
def worker_processes():
    """List the worker processes of temporary clusters of this process."""
    return workers


@pytest.fixture
def nothing_left(tmp_path, monkeypatch):
    """After the test no worker, port or folder of a temporary cluster is left; the fork server may be."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    ports = set(listening(psutil.Process()))
    yield
    assert list(folder.glob("riverrun-dask-*")) == []
    assert set(listening(psutil.Process())) - ports == set()
    eventually(lambda: not workers(), "no worker is left", limit=2)


@pytest.fixture
def closed_port() -> int:
    """A port of this machine on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def wait_until():
    return eventually
