"""Values and arguments live as long as somebody can ask for them, and no longer."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import pytest
from riverrun import as_completed, flow, task
from riverrun.task_runners import ConcurrentTaskRunner

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@pytest.fixture(autouse=True, scope="module")
def nothing_older_is_looked_at():
    """`gone` collects garbage often: all that other tests have imported would be looked through each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


class Value:
    """Something that can be referred to weakly."""


@task
def make() -> Value:
    return Value()


@task
def use(value: Any) -> int:
    return 1


@task
def broken(value: Any) -> None:
    raise ValueError("text")


def gone(reference: weakref.ref[Any]) -> bool:
    """Say whether it goes: a worker that has told of its end may not have left yet the function that had the value."""
    end = time.monotonic() + 30
    while reference() is not None:
        if time.monotonic() > end:
            return False
        time.sleep(0.001)
        gc.collect()
    return True


def kept(reference: weakref.ref[Any]) -> bool:
    gc.collect()
    return reference() is not None


OPTIONS = [{}, {"timeout_seconds": 100}, {"retries": 2, "retry_delay_seconds": 100}]


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "timeout", "retries"])
def test_a_value_goes_when_its_future_is_dropped(task_runner, options):
    @flow(task_runner=task_runner)
    def my_flow():
        future = make.with_options(**options)()
        reference = weakref.ref(future.result())
        assert kept(reference)
        del future
        return gone(reference)

    assert my_flow() is True


def test_a_value_stays_as_long_as_its_future(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        future = make()
        reference = weakref.ref(future.result())
        return kept(reference), future.result() is reference()

    assert my_flow() == (True, True)


def test_a_value_goes_when_its_last_dependent_has_ended(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        future = make()
        reference = weakref.ref(future.result())
        dependents = [use(future), use([future]), use(future)]
        del future
        for dependent in dependents:
            dependent.wait()
        return [dependent.result() for dependent in dependents], gone(reference)

    assert my_flow() == ([1, 1, 1], True)


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "timeout", "retries"])
def test_arguments_go_at_the_end_of_the_run(task_runner, options):
    @flow(task_runner=task_runner)
    def my_flow():
        value = Value()
        reference = weakref.ref(value)
        future = use.with_options(**options)([value])
        del value
        future.wait()
        return gone(reference)

    assert my_flow() is True


def test_keyword_arguments_and_those_of_a_map_go_too(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        values = [Value(), Value(), Value()]
        references = [weakref.ref(value) for value in values]
        futures = [use(value=values[0]), *use.map(values[1:])]
        del values
        for future in futures:
            future.wait()
        return [gone(reference) for reference in references]

    assert my_flow() == [True, True, True]


def test_arguments_of_a_cancelled_run_go():
    gate = threading.Event()

    @task
    def slow():
        assert gate.wait(10)

    @flow(task_runner="concurrent")
    def my_flow():
        value = Value()
        reference = weakref.ref(value)
        future = use([value, slow()])
        del value
        future.cancel()
        result = gone(reference)
        gate.set()
        return result

    assert my_flow() is True


def test_arguments_of_a_run_that_was_not_ready_go(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        value = Value()
        reference = weakref.ref(value)
        future = use([value, broken(1)])
        del value
        future.wait()
        return gone(reference)

    assert my_flow() is True


def test_the_late_value_of_a_run_that_timed_out_goes():
    gate, references = threading.Event(), []

    @task(timeout_seconds=0.05)
    def slow():
        value = Value()
        references.append(weakref.ref(value))
        assert gate.wait(10)
        return value

    @flow(task_runner="concurrent")
    def my_flow():
        future = slow()
        assert future.wait().name == "TimedOut"
        gate.set()
        return future.state.name

    my_flow()
    for thread in threading.enumerate():
        if thread.name.startswith("riverrun-"):
            thread.join(30)
    assert gone(references[0])


def test_async_tasks_keep_nothing_either(run_async, task_runner):
    @task
    async def async_make():
        return Value()

    @task
    async def async_use(value):
        return 1

    @flow(task_runner=task_runner)
    async def my_flow():
        future = async_make()
        reference = weakref.ref(await future)
        value = Value()
        argument = weakref.ref(value)
        used = async_use([value, future])
        del value, future
        await used
        return gone(reference), gone(argument)

    assert run_async(my_flow) == (True, True)


def test_values_that_are_consumed_as_they_come_do_not_pile_up():
    alive, most, lock = [0], [0], threading.Lock()

    class Counted:
        def __init__(self):
            with lock:
                alive[0] += 1
                most[0] = max(most[0], alive[0])

        def __del__(self):
            with lock:
                alive[0] -= 1

    @task
    def make_counted(n):
        return Counted()

    @flow(task_runner=ConcurrentTaskRunner(max_workers=2))
    def my_flow():
        for n in range(50):
            make_counted(n).result()

    my_flow()
    assert alive == [0]
    assert most[0] <= 3


def test_as_completed_keeps_no_future_that_it_gave(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        references = []
        for future in as_completed([make() for _ in range(5)]):
            assert all(gone(reference) for reference in references)
            references.append(weakref.ref(future.result()))
            del future
        return len(references)

    assert my_flow() == 5


def test_a_flow_run_keeps_no_value_after_its_end(task_runner):
    references = []
    runs = []

    @flow(task_runner=task_runner, on_completion=[lambda flow, flow_run, state: runs.append(flow_run)])
    def my_flow(value):
        future = make()
        references.append(weakref.ref(future.result()))
        references.append(weakref.ref(value))
        return [future]

    value = my_flow(Value())
    assert kept(references[0])
    del value
    assert gone(references[0])
    assert [run.state.name for run in runs[0].runs] == ["Completed"]


def test_the_parameters_of_a_flow_run_go_with_it(task_runner):
    references = []

    @flow(task_runner=task_runner)
    def my_flow(value):
        references.append(weakref.ref(value))

    my_flow(Value())
    assert gone(references[0])


def test_a_parent_keeps_no_value_of_its_subflows(task_runner):
    @flow
    def inner(value: Any):
        return Value()

    @flow(task_runner=task_runner)
    def outer():
        parameter, references = Value(), []
        references.append(weakref.ref(parameter))
        references.append(weakref.ref(inner(parameter)))
        future = inner.submit(parameter)
        references.append(weakref.ref(future.result()))
        del parameter, future
        return [gone(reference) for reference in references]

    assert outer() == [True, True, True]
