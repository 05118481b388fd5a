"""Workers that die: every run reaches a final state, and runs as often as its attempts say."""

from __future__ import annotations

import os
import re
import signal

import pytest
from riverrun import flow, task
from riverrun.exceptions import WorkerLost
from riverrun.task_runners import RayTaskRunner

LIMIT = 120


class Seen:
    """What a flow returns to its test: nobody looks for futures and states in here."""

    def __init__(self, *things):
        self.things = things

    def __iter__(self):
        return iter(self.things)


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


def test_sigterm_of_a_worker_is_a_loss_and_no_exception_of_the_task(on_shared, notes, noting, holding):
    """Ray makes a SystemExit of it, inside the task: so end workers whose session is shut down."""
    hold, held = holding

    @task
    def held_once():
        noting("held_once")
        hold()
        return 7

    @flow(task_runner=on_shared(max_worker_losses=0))
    def lost():
        future = held_once()
        os.kill(held(), signal.SIGTERM)
        return Seen(future, future.wait(LIMIT))

    future, state = lost()
    assert state.name == "Crashed", state
    assert state.message.startswith(f"Task run {future.name!r} was lost in attempt 1: Ray worker ")
    assert " was killed, by a signal such as SIGKILL or because it crashed (it had used " in state.message
    assert notes.counts() == {"held_once": 1}


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


def test_a_task_killed_for_its_memory(run_script):
    """Ray looks how much of the machine's memory is taken, and takes any amount for too much."""
    process = run_script("""
        import time
        from riverrun import flow, task
        from riverrun.task_runners import RayTaskRunner

        @task
        def holds():
            time.sleep(600)

        @flow(task_runner=RayTaskRunner(
            max_worker_losses=0,
            init_kwargs={"num_cpus": 1, "_system_config": {"memory_usage_threshold": 0.0,
                                                           "memory_monitor_refresh_ms": 100}},
        ))
        def hungry():
            state = holds().wait(100)
            print(state.name)
            print(state.message)

        hungry(return_state=True)
    """, lean=True)  # fmt: skip
    # Where the task had not begun, it had used nothing.
    lost = (
        r"Crashed\nTask run 'holds-\w+-0' was lost in attempt 1: (its Ray worker|Ray worker \S+:\d+) was killed by Ray "
    )
    why = r"because its node ran out of memory( \(it had used \d+ MiB at most\))?\. Give the node more memory, "
    assert re.match(lost + why, process.out), process.out + process.err
    assert "ask for it with @task(resources={'memory': ...})" in process.out


def test_the_text_about_a_task_that_was_killed_for_its_memory():
    from ray.exceptions import OutOfMemoryError
    from runner_ray._loss import Loss

    witness = {"host": "node-1", "pid": 7, "status": None, "peak": 3 << 30, "lines": ["the last words"]}
    loss = Loss(OutOfMemoryError("Memory was 23GB used / 24GB limit.\nAnd more."), witness)
    assert loss.begun
    assert loss.text("greedy-0", 1) == (
        "Task run 'greedy-0' was lost in attempt 1: Ray worker node-1:7 was killed by Ray because its node ran out of "
        "memory (it had used 3072 MiB at most). Give the node more memory, ask for it with @task(resources={'memory': "
        "...}), or do less at once. Ray says: Memory was 23GB used / 24GB limit.\nIts last lines:\n  the last words"
    )


@pytest.mark.stress  # on a machine whose memory others fill or free meanwhile it says nothing
def test_a_task_that_fills_the_memory_is_killed_and_another_is_not(run_script):
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
            state = greedy().wait(100)
            print(state.name)
            print(state.message)
            print(modest().result(100))

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


# -- what a flow run leaves behind, and what goes while it sends


LEFT = """
    from riverrun import flow, task
    from riverrun.task_runners import RayTaskRunner

    runner = RayTaskRunner(OPTIONS)

    @task
    def nap(seconds):
        import time
        time.sleep(seconds)
        return seconds

    @flow(task_runner=runner, timeout_seconds=8)
    def leaves():
        return [nap(500), nap(500), nap(500)]

    @flow(task_runner=runner)
    def around():
        nap(0).result(100)
        print(leaves(return_state=True).name)
        print(nap.with_options(resources={"cpu": 2})(0).result(100))

    around()
"""


@pytest.mark.parametrize("kind", ["address", "client_address", pytest.param("temporary", marks=pytest.mark.stress)])
def test_what_a_flow_run_leaves_running_holds_no_cpu_of_those_who_share_its_session(
    run_script, shared_ray_cluster, kind
):
    """Through Ray Client nobody sees whether a call has begun: all are asked to be withdrawn, which forbids force."""
    address = getattr(shared_ray_cluster, kind, None)
    options = f"address={address!r}" if address else "init_kwargs={'num_cpus': 2}"
    process = run_script(LEFT.replace("OPTIONS", options))
    assert process.out == "TimedOut\n0\n", process.err


@pytest.mark.parametrize(
    ("kind", "wait"),
    [
        ("address", "ray.get(started)"),
        # Whether it has begun is not seen there, and Ray interrupts its own `ray.get` in a task that it was to cancel.
        ("client_address", "[time.sleep(0.05) for _ in range(2000) if not done.exists()]"),
    ],
)
def test_a_cancel_that_comes_too_late_leaves_what_the_task_has_started(
    run_script, shared_ray_cluster, tmp_path, kind, wait
):
    process = run_script(f"""
        import time
        from pathlib import Path
        from riverrun import flow, task
        from riverrun.task_runners import RayTaskRunner

        begun, go, done = [Path({str(tmp_path)!r}) / name for name in ("begun", "go", "done")]

        def child():
            begun.touch()
            while not go.exists():
                time.sleep(0.05)
            done.touch()

        @task
        def parent():
            import ray
            started = ray.remote(num_cpus=0)(child).remote()
            {wait}
            return done.exists()

        @flow(task_runner=RayTaskRunner(address={getattr(shared_ray_cluster, kind)!r}, max_worker_losses=0))
        def late():
            future = parent()
            while not begun.exists():
                time.sleep(0.05)
            print(future.cancel())
            go.touch()
            print(future.result(100))

        late()
    """)  # fmt: skip
    assert process.out == "False\nTrue\n", process.err


def test_a_call_that_is_sent_while_the_cluster_goes_is_told(on_shared, monkeypatch):
    from runner_ray._executor import RayTaskExecutor
    from runner_ray._guests import Guests

    begin, executors = RayTaskExecutor.begin, []
    monkeypatch.setattr(RayTaskExecutor, "begin", lambda self: (executors.append(self), begin(self)))

    def gone_meanwhile(*_):
        executors[0]._disconnect("the cluster is gone.")

    @task
    def one():
        return 1

    @flow(task_runner=on_shared())
    def sending():
        monkeypatch.setattr(Guests, "refuse_unmet", gone_meanwhile)
        future = one()
        return Seen(future.name, future.wait(LIMIT))

    name, state = sending()
    assert state.name == "Crashed"
    assert state.message == f"Task run '{name}' was not sent: the cluster is gone."
