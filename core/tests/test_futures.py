from __future__ import annotations

import logging
import operator
import pickle
import threading
from concurrent.futures import CancelledError as FutureCancelledError

import pytest
from riverrun import (
    CancelledError,
    NotReadyError,
    ResultTimeout,
    RiverrunError,
    State,
    TaskFuture,
    flow,
    task,
)

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")


@task
def add(a: int, b: int) -> int:
    return a + b


@task
def broken(text: str = "text") -> int:
    raise ValueError(text)


def test_a_call_in_a_flow_gives_a_future_whose_result_is_the_value(task_runner):
    @flow(task_runner=task_runner)
    def my_flow(n=3):
        total = add(1, 2)
        assert isinstance(total, TaskFuture)
        return add(total, n).result()

    assert my_flow() == 6


def test_result_raises_what_the_task_raised(task_runner):
    error = ValueError("text")

    @task
    def raising():
        raise error

    @flow(task_runner=task_runner)
    def my_flow():
        future = raising()
        with pytest.raises(ValueError, match="^text$") as caught:
            future.result()
        assert caught.value is error
        assert future.result(raise_on_failure=False) is error
        return 1

    assert my_flow() == 1


def test_a_future_knows_its_run(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        future = add(1, 2)
        assert future.wait() == future.state
        assert future.done()
        assert repr(future.state) == "Completed(message=None, type=COMPLETED)"
        assert future.state.result() == 3
        assert future.name == f"add-{add.short_hash}-0"
        assert repr(future) == f"TaskFuture('{future.name}', Completed(message=None, type=COMPLETED))"
        assert len(future.task_run_id) == 36
        run = future.task_run
        assert (run.name, run.task_name, run.run_count) == (future.name, "add", 1)
        assert run.start_time <= run.end_time
        return add(1, 2).task_run_id != future.task_run_id

    assert my_flow()


def test_wait_gives_the_final_state_and_raises_nothing(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        state = broken().wait()
        assert isinstance(state, State)
        return repr(state)

    assert my_flow() == "Failed(message='Task run encountered an exception: ValueError: text', type=FAILED)"


@task
def until(event: threading.Event) -> str:
    assert event.wait(10)
    return "late"


def test_a_result_that_takes_too_long_is_a_result_timeout_and_the_run_goes_on():
    begun, event = threading.Event(), threading.Event()

    @task
    def until_then():
        begun.set()
        return until.fn(event)

    @flow(task_runner="concurrent")
    def my_flow():
        future = until_then()
        assert begun.wait(10)
        with pytest.raises(ResultTimeout) as caught:
            future.result(timeout=0.01)
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, RiverrunError)
        assert str(caught.value) == (
            f"Task run '{future.name}' was not finished after 0.01 seconds (state: Running(message=None, "
            "type=RUNNING)). It goes on; call result() again, or future.cancel()."
        )
        assert future.wait(timeout=0.01) is None
        assert future.wait(0) is None
        assert not future.done()
        event.set()
        return future.result(timeout=10)

    assert my_flow() == "late"


def test_a_timeout_error_of_the_tasks_own_is_not_mistaken_for_one_of_result(task_runner):
    @task
    def timing_out():
        raise TimeoutError("the database did not answer")

    @flow(task_runner=task_runner)
    def my_flow():
        with pytest.raises(TimeoutError, match="^the database did not answer$") as caught:
            timing_out().result(timeout=10)
        assert not isinstance(caught.value, ResultTimeout)
        return type(caught.value) is TimeoutError

    assert my_flow()


def test_a_negative_timeout_is_over_at_once():
    event = threading.Event()

    @flow(task_runner="concurrent")
    def my_flow():
        future = until(event)
        with pytest.raises(ResultTimeout):
            future.result(timeout=-1)
        event.set()

    my_flow()


def test_a_done_callback_gets_the_future(task_runner):
    seen = []

    @flow(task_runner=task_runner)
    def my_flow():
        first, second = add(1, 2), broken()
        first.add_done_callback(seen.append)
        second.add_done_callback(seen.append)
        # Who waits may be a moment quicker than the thread that ended the run and calls back; the flow's end is not.
        second.wait()
        first.wait()
        after = []
        first.add_done_callback(after.append)
        assert after == [first]
        return sorted([first.name, second.name])

    assert my_flow() == sorted(future.name for future in seen)


def test_a_callback_is_called_before_the_flow_ends():
    event = threading.Event()
    seen = []

    @flow(task_runner="concurrent")
    def my_flow():
        until(event).add_done_callback(lambda future: seen.append(future.state.is_completed()))
        event.set()

    my_flow()
    assert seen == [True]


def test_a_callback_that_raises_is_logged_and_changes_nothing(task_runner, caplog):
    def bad(future):
        raise ZeroDivisionError("in the callback")

    seen = []

    @flow(task_runner=task_runner)
    def my_flow():
        future = add(1, 2)
        future.add_done_callback(bad)
        future.add_done_callback(seen.append)
        return future.result()

    with caplog.at_level(logging.ERROR):
        assert my_flow() == 3
    assert len(seen) == 1
    record = next(record for record in caplog.records if "done callback" in record.message)
    assert record.message == f"A done callback of task run 'add-{add.short_hash}-0' raised."
    assert "in the callback" in record.exc_text


def test_a_callback_may_submit_another_task(task_runner):
    gate = threading.Event()

    @task
    def first():
        assert task_runner == "sequential" or gate.wait(10)
        return 3

    @flow(task_runner=task_runner)
    def my_flow():
        more, called = [], threading.Event()

        def submit(done):
            try:
                more.append(add(done, 1))
            finally:
                called.set()

        first().add_done_callback(submit)
        gate.set()
        assert called.wait(10)
        return more

    assert my_flow() == [4]


ARITHMETIC = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.floordiv,
    operator.mod,
    operator.pow,
    operator.matmul,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.and_,
    operator.or_,
    operator.xor,
]


def misuse(future: TaskFuture, what: str) -> str:
    return (
        f"A TaskFuture stands for the result of task run '{future.name}'; it is not the result, so it {what}. Write "
        f"future.result() (or, in an async flow, `await future`), or pass the future to another task."
    )


@pytest.mark.parametrize(
    ("use", "what"),
    [
        (bool, "has no truth value"),
        (lambda future: not future, "has no truth value"),
        (list, "cannot be iterated"),
        (len, "has no length"),
        (lambda future: future[0], "cannot be indexed"),
        (lambda future: 1 in future, "cannot be searched with `in`"),
        (int, "is no number"),
        (float, "is no number"),
        (range, "is no number"),
        (operator.neg, "cannot be used in arithmetic or compared by size"),
        (abs, "cannot be used in arithmetic or compared by size"),
        *[(lambda f, do=do: do(f, 1), "cannot be used in arithmetic or compared by size") for do in ARITHMETIC],
        *[(lambda f, do=do: do(1, f), "cannot be used in arithmetic or compared by size") for do in ARITHMETIC],
        (lambda f: sum([f, f]), "cannot be used in arithmetic or compared by size"),
    ],
)
def test_a_future_that_is_used_as_its_value_says_what_to_write(use, what):
    @flow(task_runner="sequential")
    def my_flow():
        future = add(1, 2)
        with pytest.raises(TypeError) as caught:
            use(future)
        assert str(caught.value) == misuse(future, what)

    my_flow()


def test_a_future_can_be_compared_for_identity_and_be_a_key(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        first, second = add(1, 2), add(1, 2)
        assert first == first  # noqa: PLR0124 - what is tested
        assert first != second
        return {first: "a", second: "b"}[second]

    assert my_flow() == "b"


def test_a_future_cannot_be_pickled(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        future = add(1, 2)
        with pytest.raises(TypeError) as caught:
            pickle.dumps(future)
        assert str(caught.value) == (
            f"A TaskFuture cannot be pickled (task run '{future.name}'): it belongs to the process of its flow. Pass "
            "it as an argument of a task, or pass future.result()."
        )

    my_flow()


def test_a_future_that_did_not_run_raises_not_ready_from_the_root_failure(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        future = add(broken(), 1)
        with pytest.raises(NotReadyError) as caught:
            future.result()
        assert isinstance(caught.value.__cause__, ValueError)
        return 1

    assert my_flow() == 1


def test_a_cancelled_future_raises_cancelled_error():
    event = threading.Event()

    @flow(task_runner="concurrent")
    def my_flow():
        waiting = add(until(event), 1)
        assert waiting.cancel() is True
        assert waiting.done()
        assert repr(waiting.state) == "Cancelled(message='Task run was cancelled.', type=CANCELLED)"
        with pytest.raises(CancelledError, match="^Task run was cancelled.$") as caught:
            waiting.result()
        assert isinstance(caught.value, FutureCancelledError)
        assert waiting.cancel() is False
        event.set()
        return 1

    assert my_flow() == 1


def test_a_finished_future_cannot_be_cancelled(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        future = add(1, 2)
        future.wait()
        assert future.cancel() is False
        return future.result()

    assert my_flow() == 3


def test_a_future_may_be_read_after_its_flow_has_ended(task_runner):
    kept = []

    @flow(task_runner=task_runner)
    def my_flow():
        kept.extend([add(1, 2), broken()])
        return 1

    assert my_flow() == 1
    assert kept[0].result() == 3
    assert kept[0].state.is_completed()
    with pytest.raises(ValueError, match="^text$"):
        kept[1].result()


def test_many_threads_may_wait_for_one_future():
    event = threading.Event()
    results = []

    @flow(task_runner="concurrent")
    def my_flow():
        future = until(event)
        threads = [threading.Thread(target=lambda: results.append(future.result())) for _ in range(8)]
        for thread in threads:
            thread.start()
        event.set()
        for thread in threads:
            thread.join()

    my_flow()
    assert results == ["late"] * 8


def test_the_states_of_a_run_can_be_seen_as_they_come():
    event = threading.Event()
    started = threading.Event()

    @task
    def running():
        started.set()
        assert event.wait(10)

    @flow(task_runner="concurrent")
    def my_flow():
        future = running()
        dependent = add(1, 2, wait_for=[future])
        assert started.wait(10)
        states = [repr(future.state), repr(dependent.state)]
        event.set()
        future.wait()
        return [*states, repr(future.state)]

    assert my_flow() == [
        "Running(message=None, type=RUNNING)",
        "Pending(message=None, type=PENDING)",
        "Completed(message=None, type=COMPLETED)",
    ]


def test_a_method_of_the_value_that_is_called_on_the_future_is_told_what_to_write(task_runner):
    @task
    def name():
        return "river"

    @flow(task_runner=task_runner)
    def my_flow():
        future = name()
        with pytest.raises(AttributeError) as caught:
            future.upper()
        return str(caught.value), future.name

    text, run = my_flow()
    assert text == (
        f"A TaskFuture has no attribute 'upper': it stands for the result of task run {run!r}. Write "
        "future.result().upper (or, in an async flow, `(await future).upper`), or pass the future to a task."
    )


def test_a_task_that_would_wait_for_another_inside_its_function_is_told_to_take_it_as_an_argument():
    gate = threading.Event()

    @task
    def upstream():
        gate.wait(10)

    held = []

    @task
    def waits():
        return held[0].result()

    @flow(task_runner="concurrent")
    def my_flow():
        future = upstream()
        held.append(future)
        state = waits().wait()
        gate.set()
        return str(state.data), future.name

    text, run = my_flow()
    assert text.startswith("`future.result()` in the function of task run 'waits-")
    assert text.endswith(
        f"would keep a slot, or a loop, that task run {run!r} may need. Pass the future as an argument: the task then "
        "starts when it is done."
    )
