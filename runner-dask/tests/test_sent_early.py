"""Chains that are sent to the cluster before their upstreams have ended: these are retried, fail, or are lost."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from riverrun import allow_failure, flow, task
from riverrun.task_runners import DaskTaskRunner

LIMIT = 100


class Seen:
    """What a flow returns to its test: nobody looks for futures and states in here."""

    def __init__(self, *things):
        self.things = things

    def __iter__(self):
        return iter(self.things)


@pytest.fixture
def on_two(forked_clusters):
    """A runner for a cluster of two workers of one thread each, which start again when they are killed."""
    cluster = forked_clusters(1)
    yield lambda **options: DaskTaskRunner(cluster=cluster.cluster, **options)
    cluster.wait_for_workers()


@pytest.fixture
def noting(tmp_path):
    """A function for tasks: it adds a line to a file; `counts()` tells how often each is in it."""
    path = str(tmp_path / "notes.txt")

    def note(text):
        with open(path, "a") as file:  # noqa: PTH123 - it runs on workers
            file.write(f"{text}\n")

    return note, lambda: Counter(Path(path).read_text().split())


@pytest.fixture
def gate(tmp_path):
    """A function for tasks that waits until the test opens it, and the one that opens."""
    path = str(tmp_path / "gate")

    def wait():
        end = time.monotonic() + LIMIT
        while not os.path.exists(path) and time.monotonic() < end:  # noqa: PTH110 - it runs on workers
            time.sleep(0.01)

    return wait, Path(path).touch


def attempts(futures):
    return [future._run.run_count for future in futures]


def chain(task, first, length):
    futures = [first]
    for _ in range(length):
        futures.append(task(futures[-1]))
    return futures


def test_an_upstream_that_is_tried_again(on_two, noting, gate):
    note, counts = noting
    wait, open_gate = gate

    @task(retries=1)
    def first():
        note("first")
        wait()
        if len(open(note.__closure__[0].cell_contents).read().split("first")) < 3:  # noqa: PTH123, SIM115
            raise ValueError("the first time")
        return 1

    @task
    def plus_one(number):
        note(f"plus-{number}")
        return number + 1

    @flow(task_runner=on_two())
    def tried_again():
        futures = chain(plus_one, first(), 5)
        open_gate()
        return Seen(futures, futures[-1].result(LIMIT))

    futures, value = tried_again()
    assert value == 6
    assert counts() == {"first": 2, **{f"plus-{number}": 1 for number in range(1, 6)}}
    assert attempts(futures) == [2, 1, 1, 1, 1, 1]


def test_an_upstream_that_fails(on_two, noting, gate):
    note, counts = noting
    wait, open_gate = gate

    @task
    def first():
        note("first")
        wait()
        raise ValueError("always")

    @task
    def plus_one(number):
        note("plus")
        return number + 1

    @task
    def shown(error):
        return repr(error)

    @flow(task_runner=on_two())
    def failing():
        futures = chain(plus_one, first(), 3)
        text = shown(allow_failure(futures[0]))
        open_gate()
        return Seen(futures, [future.wait(LIMIT) for future in futures], text.result(LIMIT))

    futures, states, text = failing()
    assert [state.name for state in states] == ["Failed", "NotReady", "NotReady", "NotReady"]
    assert f"Upstream task run '{futures[0].task_run_id}' did not reach a 'COMPLETED' state." in states[1].message
    assert "ValueError: always" in states[3].message
    assert text == "ValueError('always')"
    assert counts() == {"first": 1}
    assert attempts(futures) == [1, 0, 0, 0]


def test_an_upstream_that_is_lost_with_its_worker(on_two, noting, gate, tmp_path, wait_until):
    note, counts = noting
    wait, open_gate = gate
    held = tmp_path / "pid"
    path = str(held)

    @task
    def first():
        note("first")
        with open(f"{path}.new", "w") as file:  # noqa: PTH123 - it runs on workers
            file.write(str(os.getpid()))
        os.rename(f"{path}.new", path)  # noqa: PTH104
        wait()
        return 1

    @task
    def plus_one(number):
        note(f"plus-{number}")
        return number + 1

    @flow(task_runner=on_two())
    def lost():
        futures = chain(plus_one, first(), 5)
        os.kill(int(wait_until(lambda: held.exists() and held.read_text(), "the first has begun")), signal.SIGKILL)
        wait_until(lambda: counts()["first"] == 2, "it has begun again")
        open_gate()
        return Seen(futures, futures[-1].result(LIMIT))

    futures, value = lost()
    assert value == 6
    assert counts() == {"first": 2, **{f"plus-{number}": 1 for number in range(1, 6)}}
    assert attempts(futures) == [2, 1, 1, 1, 1, 1]


def test_an_upstream_that_is_lost_for_good(on_two, noting, gate):
    note, counts = noting
    wait, open_gate = gate

    @task
    def first():
        note("first")
        wait()
        os._exit(9)

    @task
    def plus_one(number):
        note("plus")
        return number + 1

    @flow(task_runner=on_two(max_worker_losses=1))
    def lost():
        futures = chain(plus_one, first(), 2)
        open_gate()
        return Seen(futures, [future.wait(LIMIT) for future in futures])

    futures, states = lost()
    assert [state.name for state in states] == ["Crashed", "NotReady", "NotReady"]
    assert "exited with status 9" in states[2].message
    assert counts() == {"first": 2}
    assert attempts(futures) == [2, 0, 0]


def test_a_value_that_is_lost_while_those_who_take_it_are_on_the_cluster(on_two, noting, gate, tmp_path, wait_until):
    note, counts = noting
    wait, open_gate = gate

    @task
    def large():
        note("large")
        return os.getpid(), b"x" * 200_000

    @task
    def slow(value, number):
        wait()
        note(f"slow-{number}")
        return len(value[1]) + number

    @task
    def process_of(value):
        return value[0]

    @flow(task_runner=on_two())
    def lost():
        first = large()
        pid = process_of(first).result(LIMIT)
        futures = [slow(first, number) for number in range(8)]
        os.kill(pid, signal.SIGKILL)
        open_gate()
        return Seen(first, futures, [future.result(LIMIT) for future in futures])

    first, futures, values = lost()
    assert values == [200_000 + number for number in range(8)]
    assert counts()["large"] == first._run.run_count
    assert {name: count for name, count in counts().items() if name != "large"} == {f"slow-{n}": 1 for n in range(8)}
    assert max(attempts(futures)) <= 2  # one of them was running on the worker, and had not noted anything yet


def test_a_long_chain_of_retries_and_losses_side_by_side(on_two, noting):
    note, counts = noting

    @task(retries=2)
    def shaky(number, *_):
        note(number)
        path = note.__closure__[0].cell_contents
        with open(path) as file:  # noqa: PTH123
            seen = file.read().split().count(str(number))
        if number % 5 == 1 and seen == 1:
            raise ValueError(number)
        if number % 20 == 7 and seen == 1:
            os._exit(9)
        return number

    @flow(task_runner=on_two())
    def shaking():
        futures = []
        for number in range(60):
            futures.append(shaky(number, *(futures[number - 3 : number - 2] if number >= 3 else ())))
        return Seen(futures, [future.result(LIMIT) for future in futures])

    futures, values = shaking()
    assert values == list(range(60))
    assert counts() == {str(number): count for number, count in enumerate(attempts(futures))}
    assert all(attempts(futures)[number] >= 2 for number in range(60) if number % 5 == 1 or number % 20 == 7)


@pytest.mark.parametrize("size", [1, 200_000])
@pytest.mark.parametrize("max_worker_losses", [0, 1])
def test_a_run_that_kills_its_worker_where_its_upstream_ran_is_the_one_that_is_lost(
    on_two, noting, size, max_worker_losses
):
    note, counts = noting

    @task
    def first():
        note("first")
        return b"x" * size

    @task
    def killer(value):
        note("killer")
        os.kill(os.getpid(), signal.SIGKILL)
        return value

    @flow(task_runner=on_two(max_worker_losses=max_worker_losses))
    def killed():
        futures = chain(killer, first(), 1)
        return Seen(futures, [future.wait(LIMIT) for future in futures])

    futures, states = killed()
    assert [state.name for state in states] == ["Completed", "Crashed"]
    assert "was killed by SIGKILL" in states[1].message
    assert counts()["killer"] == 1 + max_worker_losses
    assert [counts()["first"], counts()["killer"]] == attempts(futures)
