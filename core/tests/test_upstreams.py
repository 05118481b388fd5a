"""What a run does when its upstreams are done, and when one did not complete."""

from __future__ import annotations

import sys
import threading

import pytest
from riverrun import NotReadyError, ParameterTypeError, allow_failure, flow, task
from riverrun.task_runners import ConcurrentTaskRunner

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task
def broken(text: str = "text") -> int:
    raise ValueError(text)


def test_the_dependent_of_a_failed_run_is_not_ready_and_never_runs(task_runner):
    ran = []

    @task
    def never(value):
        ran.append(value)

    @flow(task_runner=task_runner)
    def my_flow():
        first = broken()
        second = never(first)
        state = second.wait()
        assert (state.type, state.name, state.is_final(), second.done()) == ("PENDING", "NotReady", True, True)
        assert state.message == (
            f"Upstream task run '{first.task_run_id}' did not reach a 'COMPLETED' state. Task run '{first.name}' ended "
            "as Failed(message='Task run encountered an exception: ValueError: text', type=FAILED)."
        )
        with pytest.raises(NotReadyError) as caught:
            second.result()
        assert str(caught.value) == state.message
        assert repr(caught.value.__cause__) == "ValueError('text')"
        return second.task_run.run_count, second.task_run.start_time

    assert my_flow() == (0, None)
    assert ran == []


def test_not_ready_goes_on_with_the_direct_upstream_and_the_root_failure(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        first = broken()
        second = add(first)
        third = add(second)
        assert third.wait().message == (
            f"Upstream task run '{second.task_run_id}' did not reach a 'COMPLETED' state. Task run '{first.name}' "
            "ended as Failed(message='Task run encountered an exception: ValueError: text', type=FAILED)."
        )
        return repr(third.result(raise_on_failure=False).__cause__)

    assert my_flow() == "ValueError('text')"


def test_a_chain_of_two_thousand_behind_a_failure_ends_without_recursion(task_runner):
    gate = threading.Event()

    @task
    def failing_later():
        assert task_runner == "sequential" or gate.wait(10)
        raise ValueError("text")

    @flow(task_runner=task_runner)
    def my_flow():
        first = last = failing_later()
        for _ in range(2_000):
            last = add(last)
        gate.set()
        state = last.wait()
        assert state.name == "NotReady"
        assert state.message.count("did not reach") == 1
        assert f"Task run '{first.name}' ended as" in state.message

    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(400)
    try:
        state = my_flow(return_state=True)
    finally:
        sys.setrecursionlimit(limit)
    assert repr(state) == "Failed(message='1/2001 states failed.', type=FAILED)"


def test_a_chain_of_two_thousand_completes_on_two_workers():
    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def my_flow():
        last = add(0)
        for _ in range(2_000):
            last = add(last)
        return last

    assert my_flow() == 2_001


def test_a_fan_out_and_in_completes_on_two_workers():
    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def my_flow():
        first = add(0)
        return task(sum)([add(first) for _ in range(500)])

    assert my_flow() == 1_000


def test_dependents_that_were_submitted_before_a_slow_upstream_ended_hold_no_slot():
    gate = threading.Event()

    @task
    def slow():
        assert gate.wait(10)
        return 1

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def my_flow():
        first = slow()
        dependents = [add(first) for _ in range(50)]
        independent = [add(1) for _ in range(50)]
        results = [future.result() for future in independent]
        gate.set()
        return sum(results) + sum(future.result() for future in dependents)

    assert my_flow() == 200


def test_of_many_upstreams_the_first_that_did_not_complete_is_named(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        good, first, second = add(1), broken("first"), broken("second")
        message = task(lambda values: values)([good, first, second]).wait().message
        return message.startswith(f"Upstream task run '{first.task_run_id}' did") and "ValueError: first" in message

    assert my_flow()


def test_a_cancelled_upstream_makes_its_dependents_not_ready():
    gate = threading.Event()

    @task
    def slow():
        assert gate.wait(10)
        return 1

    @flow(task_runner="concurrent")
    def my_flow():
        waiting = add(slow())
        dependent = add(waiting)
        waiting.cancel()
        state = dependent.wait()
        gate.set()
        return state.message.partition("state. ")[2] == (
            f"Task run '{waiting.name}' ended as Cancelled(message='Task run was cancelled.', type=CANCELLED)."
        )

    assert my_flow()


def test_allow_failure_waits_for_the_final_state_and_gives_the_exception(task_runner):
    @task
    def kind(error):
        return type(error).__name__

    @flow(task_runner=task_runner)
    def my_flow():
        failing = broken()
        return kind(allow_failure(failing)), kind(allow_failure(add(failing))), kind(allow_failure(add(1)))

    assert my_flow() == ("ValueError", "NotReadyError", "int")


def test_allow_failure_on_one_upstream_says_nothing_of_the_others(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return add(allow_failure(broken("first")), broken("second")).wait().name

    assert my_flow() == "NotReady"


def test_wait_for_orders_runs_that_share_no_value():
    gate, order = threading.Event(), []

    @task
    def first():
        assert gate.wait(10)
        order.append("first")

    @task
    def second():
        order.append("second")

    @flow(task_runner="concurrent")
    def my_flow():
        before = first()
        second(wait_for=[before])
        second.submit(wait_for=(before,))
        gate.set()

    my_flow()
    assert order == ["first", "second", "second"]


def test_wait_for_a_run_that_failed_is_not_ready_unless_it_may_fail(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        failing = broken()
        return [
            add(1, wait_for=[failing]).wait().name,
            add(1, wait_for=[allow_failure(failing)]).wait().name,
            add(1, wait_for=[[failing]]).wait().name,
            add(1, wait_for=[]).wait().name,
            add(1, wait_for=None).wait().name,
        ]

    assert my_flow() == ["NotReady", "Completed", "NotReady", "Completed", "Completed"]


def test_wait_for_takes_the_futures_of_a_map(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return add(1, wait_for=add.map([1, 2])).wait().name, add(1, wait_for=add.map([broken()])).wait().name

    assert my_flow() == ("Completed", "NotReady")


@pytest.mark.parametrize("awaited", [lambda: add(1), lambda: 5], ids=["one future", "a number"])
def test_wait_for_that_is_no_list_says_what_to_write_and_is_no_hang(task_runner, awaited):
    @flow(task_runner=task_runner)
    def my_flow():
        upstream = awaited()
        with pytest.raises(ParameterTypeError) as caught:
            add(1, wait_for=upstream)
        assert str(caught.value).startswith("Task 'add' was called with wait_for=")
        assert str(caught.value).endswith(". It takes futures in a list: wait_for=[future].")
        return 1

    assert my_flow() == 1


def test_a_state_as_an_argument_stands_for_its_value(task_runner):
    from riverrun.states import Completed, Failed

    @flow(task_runner=task_runner)
    def my_flow():
        good = add(Completed(data=5)).result()
        bad = add(Failed("no disk")).wait()
        return good, bad.message

    first = "Upstream task run 'unknown' did not reach a 'COMPLETED' state."
    assert my_flow() == (
        6,
        f"{first} A state ended as Failed(message='no disk', type=FAILED).",
    )


def test_one_worker_serves_others_while_a_run_waits_for_its_retry():
    begun = threading.Event()

    @task(retries=1, retry_delay_seconds=3600)
    def second_time():
        begun.set()
        raise ValueError("not yet")

    @flow(task_runner=ConcurrentTaskRunner(max_workers=1))
    def my_flow():
        waiting = second_time()
        assert begun.wait(30)
        others = [add(n) for n in range(20)]
        results = [future.result() for future in others]
        return waiting.state.name, waiting.cancel(), sum(results)

    assert my_flow() == ("AwaitingRetry", True, 210)
