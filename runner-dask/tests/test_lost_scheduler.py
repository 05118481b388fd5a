"""A scheduler that dies, or stands still for a while."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from riverrun import flow, task
from riverrun.exceptions import CrashedRun
from riverrun.task_runners import DaskTaskRunner

SCRIPT = """
    import os, signal, sys, time
    from riverrun import flow, task
    from riverrun.task_runners import DaskTaskRunner

    @task
    def number(n):
        return n

    @task
    def sleep():
        time.sleep(60)

    @flow(task_runner=DaskTaskRunner(address=sys.argv[1]))
    def lost():
        done = number(5)
        assert done.result() == 5
        running = [sleep() for _ in range(20)]
        dependent = number(running[0])
        time.sleep(0.3)
        os.kill(int(sys.argv[2]), signal.SIGKILL)
        began = time.monotonic()
        states = [future.wait() for future in running]
        print("within", time.monotonic() - began)
        print({state.name for state in states}, {state.message for state in states})
        print(dependent.wait().name, done.result())
        late = number(6).wait()
        print(late.name, late.message)

    lost(return_state=True)
    print("ended", time.monotonic())
"""


class Seen:
    """What a flow returns to its test: nobody looks for futures and states in here."""

    def __init__(self, *things):
        self.things = things

    def __iter__(self):
        return iter(self.things)


def test_a_killed_scheduler_crashes_every_unfinished_run(dask_cluster, tmp_path, wait_until):
    gate = str(tmp_path / "begun")

    @task
    def number(n):
        return n

    @task
    def large():
        return b"x" * 200_000

    @task
    def sleep():
        Path(gate).touch()
        time.sleep(60)

    @flow(task_runner=DaskTaskRunner(address=dask_cluster.address))
    def lost():
        fetched, kept = number(5), large()
        assert fetched.result(30) == 5
        assert kept.wait(30).name == "Completed"
        running = [sleep() for _ in range(20)]
        dependent = number(running[0])
        wait_until(Path(gate).exists, "the first sleeps")
        dask_cluster.scheduler.kill()
        began = time.monotonic()
        states = [future.wait(15) for future in running]  # the limit that is promised
        print(f"Scheduler killed: all runs crashed within {time.monotonic() - began:.2f} s")
        late = number(6)
        with pytest.raises(CrashedRun, match="lost connection to scheduler"):
            kept.result(15)
        return Seen(running, states, dependent.wait(15), late.wait(15), fetched)

    address = dask_cluster.address
    began = time.monotonic()
    running, states, dependent, late, fetched = lost()
    print(f"The flow has ended after {time.monotonic() - began:.2f} s")
    expected = [f"Task run '{future.name}' crashed: lost connection to scheduler {address}." for future in running]
    assert [state.message for state in states] == expected
    assert {state.name for state in states} == {"Crashed"}
    assert dependent.name == "NotReady"
    assert f"lost connection to scheduler {address}" in dependent.message
    assert late.name == "Crashed"
    assert f"was not sent: lost connection to scheduler {address}" in late.message
    assert fetched.result() == 5


def test_the_process_ends_when_its_scheduler_was_killed(dask_cluster, run_script):
    process = run_script(
        SCRIPT, "-u", "script.py", dask_cluster.address, str(dask_cluster.scheduler.pid), name="script.py"
    )
    assert process.returncode == 0, process.err
    assert "Traceback" not in process.err
    lines = process.out.splitlines()
    assert lines[0].startswith("within ")
    assert lines[1].startswith("{'Crashed'} {")
    assert lines[2] == "NotReady 5"
    assert lines[3].startswith("Crashed ")
    assert lines[4].startswith("ended ")


def test_a_scheduler_that_stands_still_for_5_seconds(dask_cluster, tmp_path):
    path = str(tmp_path / "notes.txt")

    @task
    def noted(n):
        with open(path, "a") as file:  # noqa: PTH123 - it runs on workers
            file.write(f"{n}\n")
        time.sleep(0.02)
        return n

    @flow(task_runner=DaskTaskRunner(address=dask_cluster.address))
    def stopped():
        futures = [noted(n) for n in range(50)]
        futures[0].result(30)
        os.kill(dask_cluster.scheduler.pid, signal.SIGSTOP)
        try:
            futures += [noted(n) for n in range(50, 100)]
            time.sleep(5)
        finally:
            os.kill(dask_cluster.scheduler.pid, signal.SIGCONT)
        return Seen(futures, [future.result(30) for future in futures])

    futures, values = stopped()
    assert values == list(range(100))
    assert [future._run.run_count for future in futures] == [1] * 100
    assert sorted(Path(path).read_text().split(), key=int) == [str(n) for n in range(100)]
