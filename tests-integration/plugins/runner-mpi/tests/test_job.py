"""What this runner does beyond the suite: how a job starts, what it says if it does not, and what listens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from riverrun import flow, task, task_runners
from riverrun.exceptions import TaskRunnerOptionError, TaskRunnerStartError
from riverrun.testing import within
from runner_mpi import MPITaskRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun import Task


@task
def listening() -> list[str]:
    """Give the addresses on which the process of the task listens, as /proc has them."""
    inodes = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        if descriptor.is_symlink():
            inodes.add(str(descriptor.readlink()).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    return [fields[1] for fields in lines if fields[3] == "0A" and fields[9] in inodes]


@task
def shared_memory() -> list[str]:
    """Give the segments of shared memory that MPICH has in the process of the task."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if "/mpich_shm_" in line]


def flow_on(runner: MPITaskRunner, seen: Task[[], list[str]] = listening) -> list[str]:
    @flow(task_runner=runner)
    def looking() -> list[str]:
        return seen().result()

    return within(60, looking)


def test_the_name_leads_to_the_class() -> None:
    assert type(task_runners.get("mpi")) is MPITaskRunner


def test_a_job_without_workers_is_refused() -> None:
    with pytest.raises(TaskRunnerOptionError, match="MPITaskRunner: workers must be 1 or more, not 0."):
        MPITaskRunner(workers=0)


def test_a_job_that_ends_at_once_says_so() -> None:
    with pytest.raises(TaskRunnerStartError, match="the job of `false` ended with status 1 before its first rank"):
        flow_on(MPITaskRunner(launcher=("false",)))


def test_a_job_that_does_not_answer_says_so(tmp_path: Path) -> None:
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexec sleep 600\n")
    silent.chmod(0o700)
    with pytest.raises(TaskRunnerStartError, match="did not answer in 0.5 seconds"):
        flow_on(MPITaskRunner(launcher=(str(silent),), start_timeout=0.5))


def test_a_launcher_that_is_not_there_is_named() -> None:
    with pytest.raises(TaskRunnerStartError, match="`no-such-mpiexec` cannot be started: "):
        flow_on(MPITaskRunner(launcher=("no-such-mpiexec",)))


def test_without_an_mpi_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(TaskRunnerStartError, match=r"found none of mpiexec.gforker.*pip install 'runner-mpi\[mpich\]'"):
        flow_on(MPITaskRunner())


@pytest.mark.skipif(not Path("/proc/self/net/tcp").exists(), reason="looks into /proc")
def test_on_one_machine_nothing_listens_on_the_network() -> None:
    loopback = socket.inet_aton("127.0.0.1")[::-1].hex().upper()
    assert [address for address in flow_on(MPITaskRunner(workers=1)) if not address.startswith(loopback)] == []


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks into /proc")
def test_a_job_that_is_killed_leaves_no_shared_memory_in_which_a_later_one_would_hang() -> None:
    segments = flow_on(MPITaskRunner(workers=2), shared_memory)
    if not segments:
        pytest.skip("this MPI names its shared memory otherwise")
    assert [segment for segment in segments if not segment.endswith(" (deleted)")] == []


AT_ONCE = """
import sys
from concurrent.futures import Future
from runner_mpi._serve import serve

class Pool:
    def submit(self, call):
        future = Future()
        future.set_result(call())
        return future

    def shutdown(self):
        pass

serve(sys.argv[-1], Pool())
"""


@task
def changed(data: bytes) -> bytes:
    return data[::-1]


def test_large_calls_and_large_outcomes_pass_each_other(tmp_path: Path) -> None:
    """With a pool that has the outcome of each call before rank 0 reads the next one."""
    (tmp_path / "launcher.py").write_text(AT_ONCE)
    data = bytes(1_000_000)

    @flow(task_runner=MPITaskRunner(workers=4, launcher=(sys.executable, str(tmp_path / "launcher.py"))))
    def many() -> list[bytes]:
        return [future.result() for future in [changed(data) for _ in range(20)]]

    assert within(60, many) == [data] * 20


SCRIPT = """
import os, sys, time
from pathlib import Path
from riverrun import flow, task

@task
def hold(file):
    Path(file + ".part").write_text(str(os.getpid()))
    os.rename(file + ".part", file)
    time.sleep(600)

@flow(task_runner="mpi")
def holding():
    hold(sys.argv[1]).result()

holding()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends signals as a POSIX shell does")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_runs_ends_with_the_process_of_its_flow(tmp_path: Path, number: int) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    file = tmp_path / "process"
    script = [sys.executable, "script.py", str(file)]
    with subprocess.Popen(script, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL) as flow_process:
        try:
            assert comes_true(file.exists)
            flow_process.send_signal(number)
            assert flow_process.wait(60) == -number
            assert comes_true(lambda: is_gone(int(file.read_text())))
        finally:
            flow_process.kill()


def comes_true(condition: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_gone(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"  # nobody has asked for its status: it has ended all the same
