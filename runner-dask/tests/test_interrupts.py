"""Ctrl-C and SIGTERM in a flow on a temporary cluster: it ends soon, with the right status, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

import psutil
import pytest
from riverrun import flow, task
from riverrun.task_runners import DaskTaskRunner

LIMIT = 100
"""Seconds after which a process that was asked to end counts as hanging."""

SCRIPT = """
    import sys, time
    from riverrun import flow, task
    from riverrun.task_runners import DaskTaskRunner

    @task
    def sleep(number):
        sys.stdout.write("a task runs\\n")  # at once: others write there, too
        sys.stdout.flush()
        time.sleep(600)

    @flow(task_runner=DaskTaskRunner(
        cluster_kwargs={"n_workers": 2, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    ))
    def sleeping():
        for number in range(100):
            sleep(number)

    if __name__ == "__main__":
        sleeping()
"""
ASYNC = SCRIPT.replace("def sleeping", "async def sleeping").replace(
    "        sleeping()\n", "        import asyncio; asyncio.run(sleeping())\n"
)
WAITING = SCRIPT.replace("            sleep(number)\n", "            sleep(number)\n        sleep(1).result()\n")


def of_group(group):
    """The processes of a process group that have not ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


# Each signal, and each place where a flow waits; the other pairs are among the stress tests.
@pytest.mark.parametrize(
    ("source", "number"),
    [
        pytest.param(SCRIPT, signal.SIGINT, id="at the end-Ctrl-C"),
        pytest.param(WAITING, signal.SIGTERM, id="in result-SIGTERM"),
        pytest.param(ASYNC, signal.SIGINT, id="async-Ctrl-C"),
        pytest.param(SCRIPT, signal.SIGTERM, id="at the end-SIGTERM", marks=pytest.mark.stress),
        pytest.param(WAITING, signal.SIGINT, id="in result-Ctrl-C", marks=pytest.mark.stress),
        pytest.param(ASYNC, signal.SIGTERM, id="async-SIGTERM", marks=pytest.mark.stress),
    ],
)
def test_a_flow_of_100_sleeping_tasks(run_script, tmp_path, wait_until, source, number):
    status = 128 + number  # 130 and 143
    folder = tmp_path / "temporary"
    folder.mkdir()
    process = run_script(source, wait=False, env={"TMPDIR": str(folder)})
    assert process.stdout.readline() == "a task runs\n"
    assert len(of_group(process.pid)) > 2
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=LIMIT)  # the tasks would take ten minutes
    returned = process.returncode
    assert returned == status or (number == signal.SIGINT and returned == -signal.SIGINT), err  # 130 for a shell, too
    wait_until(lambda: not of_group(process.pid), "no process is left")
    assert [entry.name for entry in folder.glob("riverrun-dask-*")] == []


@pytest.mark.parametrize("in_processes", [True, False], ids=["processes", "threads"])
def test_a_local_cluster_that_a_function_makes_is_ended_as_soon(run_script, wait_until, in_processes):
    source = SCRIPT.replace("cluster_kwargs={", f'cluster_class=made, cluster_kwargs={{"processes": {in_processes}, ')
    source = source.replace("    @flow", "    def made(**kwargs):\n        return LocalCluster(**kwargs)\n\n    @flow")
    process = run_script(source.replace("import sys", "from distributed import LocalCluster; import sys"), wait=False)
    assert process.stdout.readline() == "a task runs\n"
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {130, -signal.SIGINT}, err
    assert "/distributed/" not in err, "no traceback of Dask's"
    assert " - distributed." not in err, "nor does it log that it has to kill its workers"
    wait_until(lambda: not of_group(process.pid), "no process is left")


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, id="Ctrl-C"), pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.stress)],
)
def test_workers_that_are_threads_are_not_waited_for(run_script, wait_until, number):
    process = run_script(SCRIPT.replace('"n_workers": 2', '"n_workers": 2, "processes": False'), wait=False)
    assert process.stdout.readline() == "a task runs\n"
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {128 + number, -signal.SIGINT}, err
    assert "still closing" not in err
    assert " - distributed." not in err, "Dask logs nothing of its own about that"
    wait_until(lambda: not of_group(process.pid), "no process is left")


def test_nothing_is_asked_of_workers_that_were_killed(monkeypatch, tmp_path, wait_until):
    # The scheduler may not know yet that they are gone, and would try for seconds to connect to them.
    asked = []
    monkeypatch.setattr("runner_dask._forget.forget", lambda client, workers: asked.append(workers))

    @task
    def hold(path):
        path.touch()
        time.sleep(600)

    @flow(task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1, "dashboard_address": "127.0.0.1:0"}))
    def interrupted():
        hold(tmp_path / "began")
        wait_until((tmp_path / "began").exists, "the task runs")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert asked == [False]


def test_a_second_ctrl_c_ends_it_as_well(run_script, wait_until):
    process = run_script(SCRIPT, wait=False)
    assert process.stdout.readline() == "a task runs\n"
    os.kill(process.pid, signal.SIGINT)
    said = next(line for line in process.stderr if "Shutting down task runner" in line)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {130, -signal.SIGINT}, said + err
    wait_until(lambda: not of_group(process.pid), "no process is left")


def test_ctrl_c_of_a_terminal_reaches_the_workers_too(run_script, wait_until):
    process = run_script(SCRIPT, wait=False)
    assert process.stdout.readline() == "a task runs\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode in {130, -signal.SIGINT}, err
    wait_until(lambda: not of_group(process.pid), "no process is left")


@pytest.mark.parametrize(
    ("number", "status"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C", marks=pytest.mark.stress),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
    ],
)
def test_through_the_command_line(run_script, wait_until, tmp_path, number, status):
    process = run_script(SCRIPT, "-m", "riverrun", "run", "script.py:sleeping", wait=False)
    assert process.stdout.readline() == "a task runs\n"
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == status, err
    wait_until(lambda: not of_group(process.pid), "no process is left")
