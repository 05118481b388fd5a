from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest
from riverrun import RunTimeout, TaskRunnerOptionError, flow, task
from riverrun.task_runners import ConcurrentTaskRunner
from riverrun.testing import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any as Held  # the fixture in conftest.py

LIMIT = 30
"""How long anything may take before it counts as a hang, in seconds."""
NOT_YET = 0.2
"""How long to look whether something happens that must not happen, in seconds."""


@task
def same(value: object):
    return value


@task
def add(x: int, y: int):
    return x + y


def on_two_workers(function: Callable[..., object]):
    return flow(task_runner=ConcurrentTaskRunner(max_workers=2))(function)


def on_one_worker(function: Callable[..., object]):
    return flow(task_runner=ConcurrentTaskRunner(max_workers=1))(function)


def test_no_more_tasks_run_at_once_than_there_are_workers(held: Held):
    hold = task(held)

    @on_two_workers
    def bounded():
        futures = [hold() for _ in range(10)]
        held.wait_for(2)
        assert not held.one_more_starts()
        held.release.set()
        return futures

    assert within(LIMIT, bounded) == ["released"] * 10


def test_a_thread_that_waits_for_a_result_takes_a_task_over_only_if_a_worker_is_free(held: Held):
    hold, ran = task(held), threading.Event()

    @task
    def third():
        ran.set()
        return threading.get_ident()

    @on_two_workers
    def bounded():
        hold(), hold()
        held.wait_for(2)
        future = third()
        waiting = threading.Thread(target=future.result, daemon=True)
        waiting.start()  # outside of the flow's context, and yet it waits for a run of the flow
        assert not ran.wait(NOT_YET)
        held.release.set()
        waiting.join(LIMIT)
        return not waiting.is_alive()

    assert within(LIMIT, bounded)


def test_a_helping_thread_counts_as_a_worker(held: Held):
    hold = task(held)

    @on_one_worker
    def bounded():
        first, second = hold(), hold()
        threads = [threading.Thread(target=future.result, daemon=True) for future in (first, second)]
        for thread in threads:
            thread.start()
        held.wait_for(1)
        assert not held.one_more_starts()
        held.release.set()
        for thread in threads:
            thread.join(LIMIT)

    within(LIMIT, bounded)


@pytest.mark.parametrize(("cores", "workers"), [(2, 6), (64, 32), (None, 5)])
def test_by_default_there_are_four_workers_more_than_cores_and_at_most_32(
    monkeypatch: pytest.MonkeyPatch, held: Held, cores: int | None, workers: int
):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    hold = task(held)

    @flow(task_runner=ConcurrentTaskRunner())
    def bounded():
        for _ in range(40):
            hold()
        held.wait_for(workers)
        assert not held.one_more_starts()
        held.release.set()

    within(LIMIT, bounded)


@pytest.mark.parametrize("number", [0, -3])
def test_a_pool_without_workers_is_refused(number: int):
    with pytest.raises(
        TaskRunnerOptionError, match=f"^ConcurrentTaskRunner: max_workers must be 1 or more, not {number}.$"
    ):
        ConcurrentTaskRunner(max_workers=number)


def test_a_number_of_workers_that_is_no_number_is_refused():
    text = r"^`ConcurrentTaskRunner` takes `int \| None` as its option `max_workers`, not 'many' \(str\)"
    with pytest.raises(TaskRunnerOptionError, match=text):
        ConcurrentTaskRunner(max_workers="many")


def test_an_option_that_does_not_exist_is_refused_with_a_near_match():
    text = (
        r"^`ConcurrentTaskRunner` has no option `max_worker`; did you mean `max_workers`\? Its options: max_workers\.$"
    )
    with pytest.raises(TaskRunnerOptionError, match=text):
        ConcurrentTaskRunner(max_worker=3)


def test_the_worker_of_a_task_that_is_timed_out_is_replaced_and_its_late_result_is_dropped(held: Held):
    hold = task(timeout_seconds=NOT_YET)(held)

    @on_one_worker
    def late():
        slow = hold()
        with pytest.raises(RunTimeout):
            slow.result()
        others = [same(number).result() for number in range(5)]  # the only worker is still in the slow task
        held.release.set()
        others.append(same("after").result())
        return others, repr(slow.state)

    others, state = within(LIMIT, late)
    assert others == [0, 1, 2, 3, 4, "after"]
    assert state == f"TimedOut(message='Task run exceeded timeout of {NOT_YET} seconds', type=FAILED)"


def test_many_tasks_that_are_timed_out_one_after_the_other_block_nobody(held: Held):
    hold = task(timeout_seconds=0.05)(held)

    @on_two_workers
    def late():
        futures = [hold() for _ in range(10)]
        names = [future.wait().name for future in futures]
        return names, same("after").result()

    assert within(LIMIT, late) == (["TimedOut"] * 10, "after")


def test_no_worker_is_left_after_tasks_that_were_timed_out_have_ended(held: Held):
    hold = task(timeout_seconds=0.05)(held)
    before = set(threading.enumerate())

    @on_one_worker
    def late():
        hold().wait()
        return "done"

    assert within(LIMIT, late) == "done"
    held.release.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(LIMIT)
        assert not thread.is_alive()


def test_a_retry_delay_holds_no_worker():
    begun = threading.Event()

    @task(retries=1, retry_delay_seconds=3600)
    def shaky():
        begun.set()
        raise ConnectionError

    @on_one_worker
    def delayed():
        retried = shaky()
        assert begun.wait(LIMIT)
        others = [same(number).result() for number in range(20)]
        return others, retried.state.name, retried.cancel()

    assert within(LIMIT, delayed) == (list(range(20)), "AwaitingRetry", True)


def test_a_chain_of_ten_thousand_tasks_runs_on_two_workers():
    @on_two_workers
    def chain():
        future = same(0)
        for _ in range(10_000):
            future = add(future, 1)
        return future.result()

    assert within(LIMIT, chain) == 10_000


def test_a_chain_of_ten_thousand_tasks_behind_a_failure_is_not_ready():
    @task
    def fail():
        raise ValueError

    @on_two_workers
    def chain():
        future = fail()
        for _ in range(10_000):
            future = add(future, 1)
        return future.wait().name

    assert within(LIMIT, chain) == "NotReady"


def test_a_fan_of_five_hundred_tasks_runs_on_two_workers():
    @task
    def total(numbers: list[int]):
        return sum(numbers)

    @on_two_workers
    def fan():
        source = same(1)
        return total([add(source, number) for number in range(500)]).result()

    assert within(LIMIT, fan) == 500 + sum(range(500))


def test_dependents_of_a_slow_task_hold_no_worker(held: Held):
    hold = task(held)

    @on_two_workers
    def slow():
        upstream = hold()
        dependents = [same(upstream) for _ in range(500)]
        held.wait_for(1)
        free = same("free").result()
        held.release.set()
        return free, {future.result() for future in dependents}

    assert within(LIMIT, slow) == ("free", {"released"})
