"""Nodes and heads that die: every run reaches a final state, and nothing hangs.

What is held in a task is held for ten minutes: that a state comes at all is because its node is gone.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from riverrun import flow, task
from riverrun.exceptions import CrashedRun
from riverrun.task_runners import RayTaskRunner

LIMIT = 120
pytestmark = pytest.mark.usefixtures("no_session")


class Seen:
    """What a flow returns to its test: nobody looks for futures and states in here."""

    def __init__(self, *things):
        self.things = things

    def __iter__(self):
        return iter(self.things)


def attempts(futures):
    return [future._run.run_count for future in futures]


# -- what cannot be computed again, and what can


def test_sigkill_of_the_second_nodes_raylet(mortal_ray_cluster, notes, noting, holding):
    """What ran there is lost; a value that was there is made again if it can be; what waits for the node is told so."""
    hold, held = holding
    cluster = mortal_ray_cluster
    node = cluster.start_node("--resources", '{"second": 10}')
    there = {"ray": {"resources": {"second": 1}}}

    @task
    def large(name):
        """Its value stays where it was made."""
        noting(name)
        return b"x" * 2_000_000

    @task
    def length(value):
        noting("length")
        return len(value)

    @task
    def holds():
        hold()

    @task
    def quick(number):
        return number

    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    from runner_ray import remote_options

    @flow(task_runner=RayTaskRunner(address=cluster.address, max_worker_losses=1))
    def lost():
        import ray

        with remote_options(resources={"second": 0.5}, num_cpus=0):
            value = large("only there")
        (second,) = [each["NodeID"] for each in ray.nodes() if each["Alive"] and "second" in each["Resources"]]
        with remote_options(scheduling_strategy=NodeAffinitySchedulingStrategy(second, soft=True)):
            movable, fetched = large("rather there"), large("rather there")
        for each in (value, movable, fetched):
            each.wait(LIMIT)
        stuck = holds.with_options(runner_options=there)()
        waits = [holds.with_options(runner_options={"ray": {"resources": {"second": 10}}})() for _ in range(2)]
        held()
        cluster.kill("raylet", node)
        neighbours = [quick(number).result(LIMIT) for number in range(20)]
        states = [future.wait(LIMIT) for future in [stuck, *waits]]
        sizes = [length(movable).result(LIMIT), len(fetched.result(LIMIT))]
        return Seen(neighbours, states, [movable, fetched], sizes, length(value).wait(LIMIT))

    neighbours, states, moved, sizes, of_lost = lost()
    assert neighbours == list(range(20))
    assert [state.name for state in states] == ["Crashed"] * 3
    assert "is gone" in states[0].message
    for state in states[1:]:
        assert (
            "asks for CPU=1, second=10, which no node of the Ray cluster has. Its 1 node have at most: "
            in state.message
        )
        assert state.message.endswith("A node that had it is gone.")
    assert sizes == [2_000_000] * 2
    assert attempts(moved) == [2, 2]
    # The call that made the value asks for the node that is gone: it cannot be made again, and nothing hangs.
    assert of_lost.name == "Crashed"
    assert notes.counts() == {"only there": 1, "rather there": 4, "length": 1}


# -- the head


def test_a_head_that_is_stopped_is_not_waited_for(mortal_ray_cluster):
    cluster = mortal_ray_cluster
    (head,) = cluster.processes_named("gcs_server")

    @task
    def quick():
        return 7

    @flow(task_runner=RayTaskRunner(address=cluster.address))
    def goes_on():
        quick().result(LIMIT)
        head.suspend()  # it still accepts connections
        try:
            return quick.with_options(resources={"cpu": 0.5})().result(LIMIT)  # asks which nodes there are
        finally:
            head.resume()

    assert goes_on() == 7


def lost_head(cluster, noting, end, *, address=None):
    @task
    def sleeps():
        noting("sleeps")
        time.sleep(600)

    @task
    def quick():
        return 7

    @flow(task_runner=RayTaskRunner(address=address or cluster.address))
    def headless():
        done = quick()
        assert done.result(LIMIT) == 7
        futures = [sleeps() for _ in range(5)]
        eventually_noted(noting)
        end()
        states = [future.wait(LIMIT) for future in futures]
        late = quick().wait(LIMIT)
        return Seen(done.result(), states, late)

    return headless(return_state=True)


def eventually_noted(noting):
    path = noting.__closure__[0].cell_contents
    end = time.monotonic() + LIMIT
    while not Path(path).exists():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["gcs_server", "raylet", pytest.param("all", marks=pytest.mark.stress)])
def test_sigkill_of_the_head(mortal_ray_cluster, noting, name):
    cluster = mortal_ray_cluster

    def end():
        if name == "all":
            cluster.end()
        else:
            cluster.kill(name)

    done, states, late = lost_head(cluster, noting, end).result()
    assert done == 7
    assert [state.name for state in states] == ["Crashed"] * 5
    for state in [*states, late]:
        assert f"lost the connection to the Ray cluster at {cluster.address}: " in state.message
        assert isinstance(state.exception(), CrashedRun)


GOES_ON = """
import time
from riverrun import flow, task
from riverrun.task_runners import RayTaskRunner

@task
def sleeps():
    open(NOTED, "w").close()
    time.sleep(600)

@task
def answer():
    return 42

@flow(task_runner=RayTaskRunner(init_kwargs={"num_cpus": 1}))
def elsewhere():
    return answer().result(LIMIT)

@flow(task_runner=RayTaskRunner(address=ADDRESS))
def goes_on():
    print(sleeps().wait(LIMIT).message)
    heard = time.monotonic()
    print(elsewhere())  # at once: the session is not closed yet
    time.sleep(max(0, heard + SECONDS + 3 - time.monotonic()))
    return answer().wait(LIMIT).name

OPEN
print(goes_on())
"""

LAST_LINE = """
import os, sys, threading, time
import ray
from riverrun import flow, task
from riverrun.task_runners import RayTaskRunner

@task
def answer():
    return 42

@flow(task_runner=RayTaskRunner(address=ADDRESS))
def prints():
    print(answer().result(LIMIT))
    open(NOTED, "w").close()
    while not os.path.exists(GONE):
        time.sleep(0.05)
    line = {"ip": "127.0.0.1", "pid": "autoscaler", "is_err": False, "lines": [":event_summary:the last line"]}
    of_ray = threading.Thread(target=ray._private.worker.print_worker_logs, args=(line, sys.stdout), daemon=True)
    of_ray.start()
    of_ray.join(LIMIT)
    return of_ray.is_alive()

OPEN
print(prints())
"""


# A thread of gRPC's says so when its channel is closed.
@pytest.mark.filterwarnings("ignore:Exception in thread:pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.timeout(800)
@pytest.mark.parametrize("of_user", [False, pytest.param(True, marks=pytest.mark.stress)])
def test_flow_runs_of_three_processes_outlive_their_cluster(  # noqa: PLR0917 - fixtures
    make_ray_cluster, run_script, noting, tmp_path, wait_until, of_user
):
    """One head serves three; it dies with all that belongs to it, and with its server for Ray Client.

    Ray ends a process in which a session is open, or a question to the head is, so long after the head has gone: here,
    30 seconds. One process goes on for longer than that; it may have no session of Ray then. In another one, Ray prints
    the last line of the cluster, and would ask the head for its colour: that session could not be closed.
    """
    seconds = 30
    cluster = make_ray_cluster(client=True)
    gone, processes = tmp_path / "gone", []
    env = {"RAY_gcs_rpc_server_reconnect_timeout_s": str(seconds), "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    for number, source in enumerate((GOES_ON, LAST_LINE)):
        noted = tmp_path / f"noted-{number}"
        opening = f"import ray; ray.init({cluster.address!r})" if of_user else ""
        words = {"ADDRESS": repr(cluster.address), "SECONDS": str(seconds), "NOTED": repr(str(noted)),
                 "GONE": repr(str(gone)), "OPEN": opening, "LIMIT": str(LIMIT)}  # fmt: skip
        for word, value in words.items():
            source = source.replace(word, value)  # noqa: PLW2901
        processes.append(run_script(source, name=f"script-{number}.py", wait=False, lean=True, env=env))
        wait_until(noted.exists, "the flow runs")

    def end():
        cluster.end()
        gone.touch()

    done, states, late = lost_head(cluster, noting, end, address=cluster.client_address).result()
    assert done == 7
    for state in [*states, late]:
        assert state.name == "Crashed"
        assert f"lost the connection to the Ray cluster at {cluster.client_address}: " in state.message

    out, err = processes[0].communicate(timeout=2 * LIMIT)
    message, *others = out.splitlines()
    assert f"lost the connection to the Ray cluster at {cluster.address}: " in message, err
    assert others == ["42", "Crashed"], err
    closing = "Closing the session of Ray that was open in this process: lost the connection to the Ray cluster at "
    assert (closing in err) == of_user

    out, err = processes[1].communicate(timeout=LIMIT)
    first, *printed, last = out.splitlines()
    assert (first, last) == ("42", "False"), err
    assert "the last line" in printed[-1]


def test_a_session_that_is_shut_down_during_the_run(shared_ray_cluster, noting):
    import ray

    done, states, late = lost_head(shared_ray_cluster, noting, ray.shutdown).result()
    assert done == 7
    for state in [*states, late]:
        assert state.name == "Crashed"
        assert "the session of Ray was shut down during the flow run." in state.message
