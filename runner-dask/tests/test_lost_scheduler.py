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

LIMIT = 100
SCRIPT = """
    import os, signal, sys, time
    from pathlib import Path
    from riverrun import flow, task
    from riverrun.task_runners import DaskTaskRunner

    @task
    def number(n):
        return n

    gate = Path(sys.argv[3])

    @task
    def sleep():
        gate.touch()
        time.sleep(600)

    @flow(task_runner=DaskTaskRunner(address=sys.argv[1]))
    def lost():
        done = number(5)
        assert done.result() == 5
        running = [sleep() for _ in range(20)]
        dependent = number(running[0])
        while not gate.exists():
            time.sleep(0.01)
        os.kill(int(sys.argv[2]), signal.SIGKILL)
        states = [future.wait() for future in running]
        print({state.name for state in states}, {state.message for state in states})
        print(dependent.wait().name, done.result())
        late = number(6).wait()
        print(late.name, late.message)

    lost(return_state=True)
    print("ended")
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
        time.sleep(600)

    @flow(task_runner=DaskTaskRunner(address=dask_cluster.address))
    def lost():
        fetched, kept = number(5), large()
        assert fetched.result(LIMIT) == 5
        assert kept.wait(LIMIT).name == "Completed"
        running = [sleep() for _ in range(20)]
        dependent = number(running[0])
        wait_until(Path(gate).exists, "the first sleeps")
        dask_cluster.scheduler.kill()
        states = [future.wait(LIMIT) for future in running]
        late = number(6)
        with pytest.raises(CrashedRun, match="lost connection to scheduler"):
            kept.result(LIMIT)
        return Seen(running, states, dependent.wait(LIMIT), late.wait(LIMIT), fetched)

    address = dask_cluster.address
    running, states, dependent, late, fetched = lost()
    expected = [f"Task run '{future.name}' crashed: lost connection to scheduler {address}." for future in running]
    assert [state.message for state in states] == expected
    assert {state.name for state in states} == {"Crashed"}
    assert dependent.name == "NotReady"
    assert f"lost connection to scheduler {address}" in dependent.message
    assert late.name == "Crashed"
    assert f"was not sent: lost connection to scheduler {address}" in late.message
    assert fetched.result() == 5


def test_the_process_ends_when_its_scheduler_was_killed(dask_cluster, run_script, tmp_path):
    arguments = dask_cluster.address, str(dask_cluster.scheduler.pid), str(tmp_path / "begun")
    process = run_script(SCRIPT, "-u", "script.py", *arguments, name="script.py")
    assert process.returncode == 0, process.err
    assert "Traceback" not in process.err
    lines = process.out.splitlines()
    assert lines[0].startswith("{'Crashed'} {")
    assert lines[1] == "NotReady 5"
    assert lines[2].startswith("Crashed ")
    assert lines[3] == "ended"


def test_a_scheduler_that_stands_still_for_5_seconds(shared_dask_cluster, tmp_path):
    path = str(tmp_path / "notes.txt")

    @task
    def noted(n):
        with open(path, "a") as file:  # noqa: PTH123 - it runs on workers
            file.write(f"{n}\n")
        time.sleep(0.02)
        return n

    @flow(task_runner=DaskTaskRunner(address=shared_dask_cluster.address))
    def stopped():
        futures = [noted(n) for n in range(50)]
        futures[0].result(LIMIT)
        os.kill(shared_dask_cluster.scheduler.pid, signal.SIGSTOP)
        try:
            futures += [noted(n) for n in range(50, 100)]
            time.sleep(5)  # this is what happens, and nothing is judged by it
        finally:
            os.kill(shared_dask_cluster.scheduler.pid, signal.SIGCONT)
        return Seen(futures, [future.result(LIMIT) for future in futures])

    futures, values = stopped()
    assert values == list(range(100))
    assert [future._run.run_count for future in futures] == [1] * 100
    assert sorted(Path(path).read_text().split(), key=int) == [str(n) for n in range(100)]
