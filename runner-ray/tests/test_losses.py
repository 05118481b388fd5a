"""Workers, nodes and heads that die: every run reaches a final state, and runs as often as its attempts say."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from riverrun import flow, task
from riverrun.exceptions import CrashedRun, WorkerLost
from riverrun.task_runners import RayTaskRunner

LIMIT = 60


class Seen:
    """What a flow returns to its test: nobody looks for futures and states in here."""

    def __init__(self, *things):
        self.things = things

    def __iter__(self):
        return iter(self.things)


class Notes:
    """A file in which tasks note, one line each, that they have begun."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def lines(self):
        return Path(self.path).read_text().splitlines() if Path(self.path).exists() else []

    def counts(self):
        return Counter(self.lines())


@pytest.fixture
def notes(tmp_path):
    return Notes(tmp_path / "notes.txt")


@pytest.fixture
def noting(notes):
    """A function for tasks: it adds a line to the notes."""
    path = notes.path

    def note(text):
        with open(path, "a") as file:  # noqa: PTH123 - it runs on workers
            file.write(f"{text}\n")

    return note


@pytest.fixture
def holding(tmp_path, wait_until):
    """A function for tasks that tells its process and waits for ever, the first time; and the process that does."""
    path = str(tmp_path / "held.txt")

    def hold():
        if os.path.exists(path):  # noqa: PTH110 - it runs on workers
            return
        with open(f"{path}.new", "w") as file:  # noqa: PTH123
            file.write(str(os.getpid()))
        os.rename(f"{path}.new", path)  # noqa: PTH104
        time.sleep(600)

    def held():
        return int(wait_until(lambda: Path(path).exists() and Path(path).read_text(), "a task holds its worker"))

    return hold, held


def attempts(futures):
    return [future._run.run_count for future in futures]


@pytest.fixture
def on_shared(held_session):
    """A runner on the cluster that the tests of this module share."""
    return lambda **options: RayTaskRunner(address=held_session.address, **options)


# -- a worker


def test_sigkill_of_a_worker_in_the_middle_of_200_tasks(on_shared, notes, noting, holding):
    hold, held = holding

    @task(retries=1)
    def noted(number):
        noting(number)
        if number == 100:
            hold()
        return number

    @flow(task_runner=on_shared())
    def many():
        futures = [noted(number) for number in range(200)]
        os.kill(held(), signal.SIGKILL)
        return Seen(futures, [future.result(LIMIT) for future in futures])

    futures, values = many()
    assert values == list(range(200))
    assert notes.counts() == {str(n): a for n, a in zip(range(200), attempts(futures), strict=True)}
    assert attempts(futures)[100] == 2
    assert sum(attempts(futures)) == 201


def test_a_run_that_may_not_be_lost_is_crashed_with_worker_cause_and_last_lines(on_shared, holding, notes, noting):
    hold, held = holding

    @task(log_prints=True)
    def speaking():
        noting("speaking")
        print("the first words")
        print("the last words")
        hold()

    @flow(task_runner=on_shared(max_worker_losses=0))
    def lost():
        future = speaking()
        pid = held()
        os.kill(pid, signal.SIGKILL)
        return Seen(future, pid, future.wait(LIMIT))

    future, pid, state = lost()
    assert state.name == "Crashed"
    assert f"Task run '{future.name}' was lost in attempt 1: Ray worker " in state.message
    assert f":{pid} was killed, by a signal such as SIGKILL or because it crashed (it had used " in state.message
    said = [f"  Task run '{future.name}' - the {which} words" for which in ("first", "last")]
    assert state.message.endswith("\n".join(["\nIts last lines:", *said]))
    assert type(state.exception()) is WorkerLost
    assert notes.lines() == ["speaking"]


def test_a_task_that_always_ends_its_worker_among_50_good_ones(on_shared, notes, noting):
    @task
    def good(number):
        return number

    @task
    def poison():
        noting("poison")
        os._exit(9)

    @flow(task_runner=on_shared())
    def mixed():
        before = [good(number) for number in range(25)]
        killer = poison()
        after = [good(number) for number in range(25, 50)]
        values = [future.result(LIMIT) for future in [*before, *after]]
        return Seen(killer, killer.wait(LIMIT), values)

    killer, state, values = mixed()
    assert values == list(range(50))
    assert state.name == "Crashed"
    assert f"Task run '{killer.name}' was lost in attempt 3: Ray worker " in state.message
    assert state.message.endswith(" exited with status 9: the task itself ended its worker.")
    assert "WorkerCrashedError" not in repr(state)
    assert notes.lines() == ["poison"] * 3 == ["poison"] * killer._run.run_count


def test_what_waits_for_a_run_that_is_lost_runs_once_with_its_value(on_shared, notes, noting, holding):
    hold, held = holding

    @task
    def first():
        noting("first")
        hold()
        return 1

    @task
    def second(value):
        noting("second")
        return value + 1

    @flow(task_runner=on_shared())
    def chained():
        one = first()
        two = second(one)
        three = second(two)
        os.kill(held(), signal.SIGKILL)
        return Seen([one, two, three], three.result(LIMIT))

    futures, value = chained()
    assert value == 3
    assert notes.counts() == {"first": 2, "second": 2}
    assert attempts(futures) == [2, 1, 1]


def test_a_failed_upstream_is_tried_again_and_what_was_sent_early_takes_the_new_value(on_shared, notes, noting):
    path = notes.path

    @task(retries=1)
    def shaky():
        noting("shaky")
        with open(path) as file:  # noqa: PTH123
            if len(file.readlines()) < 2:
                raise ValueError("not yet")
        return 20

    @task
    def after(value):
        noting("after")
        return value + 1

    @flow(task_runner=on_shared())
    def chained():
        return after(shaky()).result(LIMIT)

    assert chained() == 21
    assert notes.lines() == ["shaky", "shaky", "after"]


def test_a_task_killed_for_its_memory(make_ray_cluster, run_script, tmp_path):
    script = """
        import time
        from riverrun import flow, task
        from riverrun.task_runners import RayTaskRunner

        @task
        def greedy():
            taken = []
            for _ in range(400):
                taken.append(bytearray(b"x") * (8 << 20))
                time.sleep(0.02)
            return len(taken)

        @task
        def modest():
            return 1

        @flow(task_runner=RayTaskRunner(
            max_worker_losses=0,
            init_kwargs={"num_cpus": 2, "_system_config": {"memory_usage_threshold": THRESHOLD,
                                                           "memory_monitor_refresh_ms": 100}},
        ))
        def hungry():
            state = greedy().wait(50)
            print(state.name)
            print(state.message)
            print(modest().result(20))

        hungry(return_state=True)
    """
    import psutil

    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + (1 << 30)) / memory.total  # a gigabyte more than now
    process = run_script(script.replace("THRESHOLD", f"{threshold:.4f}"))
    assert process.out.startswith("Crashed\nTask run 'greedy-"), process.out + process.err
    assert " was killed by Ray because its node ran out of memory (it had used " in process.out
    assert "ask for it with @task(resources={'memory': ...})" in process.out
    assert process.out.endswith("\n1\n")


# -- what cannot be computed again, and what can


def large_value_on_a_worker(noting, **options):
    """A task whose value stays where it was made."""

    @task(**options)
    def large():
        noting("large")
        return b"x" * 2_000_000

    @task
    def length(value):
        noting("length")
        return len(value)

    return large, length


def second_node(cluster):
    return cluster.start_node("--resources", '{"second": 10}')


def test_sigkill_of_the_second_nodes_raylet(make_ray_cluster, notes, noting, holding):
    """One run is lost and Crashed, the value that was there is made again, what waited for the node is told so."""
    hold, held = holding
    cluster = make_ray_cluster()
    node = second_node(cluster)
    there = {"ray": {"resources": {"second": 1}}}
    large, length = large_value_on_a_worker(noting)

    @task
    def holds():
        hold()

    @task
    def quick(number):
        return number

    from runner_ray import remote_options

    @flow(task_runner=RayTaskRunner(address=cluster.address, max_worker_losses=1))
    def lost():
        with remote_options(resources={"second": 0.5}, num_cpus=0):
            value = large.with_options(name="large")()
        value.wait(LIMIT)
        again = large.with_options(name="again")
        value_here = again()
        stuck = holds.with_options(runner_options=there)()
        waits = [holds.with_options(runner_options={"ray": {"resources": {"second": 10}}})() for _ in range(2)]
        held()
        cluster.kill("raylet", node)
        neighbours = [quick(number).result(LIMIT) for number in range(20)]
        states = [future.wait(LIMIT) for future in [stuck, *waits]]
        return Seen(neighbours, states, length(value_here).result(LIMIT), length(value).wait(LIMIT))

    began = time.monotonic()
    neighbours, states, size, of_lost = lost()
    assert time.monotonic() - began < 2 * LIMIT
    assert neighbours == list(range(20))
    assert size == 2_000_000
    assert [state.name for state in states] == ["Crashed"] * 3
    assert "is gone" in states[0].message
    for state in states[1:]:
        assert (
            "asks for CPU=1, second=10, which no node of the Ray cluster has. Its 1 node have at most: "
            in state.message
        )
        assert state.message.endswith("A node that had it is gone.")
    # The call that made the value asks for the node that is gone: it cannot be made again, and nothing hangs.
    assert of_lost.name == "Crashed"


def test_a_value_that_was_lost_with_its_node_is_made_again(make_ray_cluster, notes, noting):
    cluster = make_ray_cluster(cpus=1)
    node = second_node(cluster)
    large, length = large_value_on_a_worker(noting)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
    from runner_ray import remote_options

    @flow(task_runner=RayTaskRunner(address=cluster.address))
    def lost():
        import ray

        (there,) = [each["NodeID"] for each in ray.nodes() if "second" in each["Resources"]]
        with remote_options(scheduling_strategy=NodeAffinitySchedulingStrategy(there, soft=True)):
            value = large()
            fetched = large()
        value.wait(LIMIT)
        fetched.wait(LIMIT)
        cluster.kill("raylet", node)
        return Seen([value, fetched], length(value).result(LIMIT), len(fetched.result(LIMIT)))

    futures, size, fetched = lost()
    assert size == fetched == 2_000_000
    assert notes.counts() == {"large": 4, "length": 1}
    assert attempts(futures) == [2, 2]


# -- the head


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
        began = time.monotonic()
        end()
        states = [future.wait(LIMIT) for future in futures]
        took = time.monotonic() - began
        late = quick().wait(LIMIT)
        return Seen(done.result(), states, took, late)

    return headless(return_state=True)


def eventually_noted(noting):
    path = noting.__closure__[0].cell_contents
    end = time.monotonic() + LIMIT
    while not Path(path).exists():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("name", ["gcs_server", "raylet", "all"])
def test_sigkill_of_the_head(make_ray_cluster, noting, name):
    cluster = make_ray_cluster()

    def end():
        if name == "all":
            cluster.end()
        else:
            cluster.kill(name)

    done, states, took, late = lost_head(cluster, noting, end).result()
    assert done == 7
    assert took < 15
    assert [state.name for state in states] == ["Crashed"] * 5
    for state in [*states, late]:
        assert f"lost the connection to the Ray cluster at {cluster.address}: " in state.message
        assert isinstance(state.exception(), CrashedRun)


# A thread of gRPC's says so when its channel is closed.
@pytest.mark.filterwarnings("ignore:Exception in thread:pytest.PytestUnhandledThreadExceptionWarning")
def test_sigkill_of_the_head_through_ray_client(make_ray_cluster, noting):
    cluster = make_ray_cluster(client=True)
    state = lost_head(cluster, noting, cluster.end, address=cluster.client_address)
    done, states, took, late = state.result()
    assert done == 7
    assert took < 15
    for state in [*states, late]:
        assert state.name == "Crashed"
        assert f"lost the connection to the Ray cluster at {cluster.client_address}: " in state.message


def test_a_session_that_is_shut_down_during_the_run(make_ray_cluster, noting):
    cluster = make_ray_cluster()

    def end():
        import ray

        ray.shutdown()

    done, states, took, late = lost_head(cluster, noting, end).result()
    assert done == 7
    assert took < 15
    for state in [*states, late]:
        assert state.name == "Crashed"
        assert "the session of Ray was shut down during the flow run." in state.message
