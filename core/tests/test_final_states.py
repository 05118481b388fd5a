"""The final state of a flow, for every kind of return value, with its exact message."""

from __future__ import annotations

import threading

import pytest
from riverrun import CancelledError, FailedRun, NotReadyError, flow, task
from riverrun.states import Cancelled, Completed, Crashed, Failed, Running

pytestmark = pytest.mark.usefixtures("no_thread_left_behind")

ALL = "Completed(message='All states completed.', type=COMPLETED)"


@task
def good(value: object = 1) -> object:
    return value


@task
def bad(text: str = "text") -> None:
    raise ValueError(text)


def cancelled():
    """Give the future of a run that was cancelled while it waited for its upstream."""
    future = good(wait_for=[bad_later()])
    future.cancel()
    return future


GATE = threading.Event()


@task
def bad_later() -> None:
    assert GATE.wait(10)


@pytest.fixture(autouse=True)
def gate():
    GATE.clear()
    yield
    GATE.set()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (lambda: 5, "Completed(message=None, type=COMPLETED)"),
        (lambda: "text", "Completed(message=None, type=COMPLETED)"),
        (list, "Completed(message=None, type=COMPLETED)"),
        (lambda: [1, 2], "Completed(message=None, type=COMPLETED)"),
        (lambda: False, "Completed(message=None, type=COMPLETED)"),
        (lambda: None, ALL),
        (lambda: [good(), bad(), 0][2], "Completed(message=None, type=COMPLETED)"),
        (good, ALL),
        (lambda: [good(), good()], ALL),
        (lambda: (good(), good()), ALL),
        (lambda: {good(1), good(2)}, ALL),
        (lambda: {"a": good(), "b": good()}, ALL),
        (lambda: good.map([1, 2]), ALL),
        (bad, "Failed(message='1/1 states failed.', type=FAILED)"),
        (lambda: [bad(), good(), bad()], "Failed(message='2/3 states failed.', type=FAILED)"),
        (lambda: (good(), bad()), "Failed(message='1/2 states failed.', type=FAILED)"),
        (lambda: {good(), bad()}, "Failed(message='1/2 states failed.', type=FAILED)"),
        (lambda: {"a": bad()}, "Failed(message='1/1 states failed.', type=FAILED)"),
        (lambda: bad.map(["a", "b"]), "Failed(message='2/2 states failed.', type=FAILED)"),
        (lambda: (bad(), 5), "Failed(message='1/1 states failed.', type=FAILED)"),
        (lambda: (good(), 5), ALL),
        (lambda: [bad(), good(wait_for=[good()])], "Failed(message='1/2 states failed.', type=FAILED)"),
        (lambda: [bad().wait(), good()], "Failed(message='1/2 states failed.', type=FAILED)"),
        (lambda: Completed("done by hand"), "Completed(message='done by hand', type=COMPLETED)"),
        (lambda: Failed("no disk"), "Failed(message='no disk', type=FAILED)"),
        (lambda: Cancelled("not today"), "Cancelled(message='not today', type=CANCELLED)"),
        (lambda: Crashed("lost"), "Crashed(message='lost', type=CRASHED)"),
        (lambda: [Completed(), Completed()], ALL),
        (lambda: [Completed(), Failed()], "Failed(message='1/2 states failed.', type=FAILED)"),
        (lambda: [Completed(), Cancelled(), good()], "Cancelled(message='1/3 states cancelled.', type=CANCELLED)"),
        (lambda: [Cancelled(), Failed()], "Failed(message='1/2 states failed.', type=FAILED)"),
        (lambda: [Running(), Running(), Completed()], "Failed(message='2/3 states are not final.', type=FAILED)"),
    ],
)
def test_the_final_state_follows_from_what_the_flow_returned(task_runner, body, expected):
    @flow(task_runner=task_runner)
    def my_flow():
        return body()

    assert repr(my_flow(return_state=True)) == expected


def test_one_failed_and_one_not_ready_are_one_failed_of_two(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        first = bad()
        good(first)

    assert repr(my_flow(return_state=True)) == "Failed(message='1/2 states failed.', type=FAILED)"


def test_returning_what_was_not_ready_fails_with_the_root_failure(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return good(bad())

    state = my_flow(return_state=True)
    assert repr(state) == "Failed(message='1/1 states are not final.', type=FAILED)"
    with pytest.raises(ValueError, match="(?m)^text$"):
        my_flow()


def test_a_flow_without_any_run_that_returns_none_has_completed(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        pass

    state = my_flow(return_state=True)
    assert (repr(state), state.result()) == (ALL, None)


def test_none_is_the_aggregate_of_all_runs(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        bad("one")
        bad("two")
        good()

    assert repr(my_flow(return_state=True)) == "Failed(message='2/3 states failed.', type=FAILED)"


def test_a_cancelled_run_makes_a_cancelled_flow():
    @flow(task_runner="concurrent")
    def my_flow():
        future = cancelled()
        GATE.set()
        return [future, good(), good()]

    state = my_flow(return_state=True)
    assert repr(state) == "Cancelled(message='1/3 states cancelled.', type=CANCELLED)"
    with pytest.raises(CancelledError):
        my_flow()


def test_failed_comes_before_cancelled():
    @flow(task_runner="concurrent")
    def my_flow():
        cancelled()
        bad()
        GATE.set()

    assert repr(my_flow(return_state=True)) == "Failed(message='1/3 states failed.', type=FAILED)"


def test_a_state_returned_by_hand_raises_its_exception(task_runner):
    @flow(task_runner=task_runner)
    def my_flow(data=None):
        return Failed("no disk", data)

    with pytest.raises(FailedRun, match="(?m)^no disk$"):
        my_flow()
    with pytest.raises(OSError, match="(?m)^the disk$"):
        my_flow(OSError("the disk"))


def test_a_state_returned_by_hand_gives_its_value(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return Completed("by hand", 5)

    assert my_flow() == 5


def test_an_aggregate_holds_the_resolved_value(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return {"a": good(1), "b": [good(2), Completed(data=3)]}

    assert my_flow(return_state=True).result() == {"a": 1, "b": [2, 3]}


def test_a_state_that_is_not_final_makes_the_flow_raise_something(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return [Running()]

    with pytest.raises(FailedRun, match="(?m)^1/1 states are not final.$"):
        my_flow()


def test_a_flow_that_returns_one_state_that_is_not_final_never_ends_in_that_state(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return Running()

    assert my_flow(return_state=True).is_final()


# -- what is raised


def test_a_flow_that_raised_has_failed_with_that_text(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        good()
        raise ValueError("text")

    state = my_flow(return_state=True)
    assert repr(state) == "Failed(message='Flow run encountered an exception: ValueError: text', type=FAILED)"
    with pytest.raises(ValueError, match="(?m)^text$") as caught:
        my_flow()
    assert not hasattr(caught.value, "__notes__")


def test_a_flow_that_reads_the_result_of_a_failed_task_has_failed_with_its_exception(task_runner):
    @flow(task_runner=task_runner, flow_run_name="mine")
    def my_flow():
        return bad().result()

    with pytest.raises(ValueError, match="(?m)^text$") as caught:
        my_flow()
    name = f"bad-{bad.short_hash}-0"
    assert caught.value.__notes__ == [f"Task run '{name}' of flow run 'mine' failed with this exception."]
    assert my_flow(return_state=True).message == "Flow run encountered an exception: ValueError: text"


def test_the_first_root_failure_in_order_of_submission_is_raised_with_notes_about_the_others():
    first_may_fail = threading.Event()

    @task
    def failing_last():
        assert first_may_fail.wait(10)
        raise ValueError("submitted first, failed last")

    @flow(task_runner="concurrent", flow_run_name="mine")
    def my_flow():
        first = failing_last()
        second, third = bad("second"), bad("third")
        good(first)
        good(second)
        third.wait()
        second.wait()
        first_may_fail.set()

    with pytest.raises(ValueError, match="(?m)^submitted first, failed last$") as caught:
        my_flow()
    assert caught.value.__notes__ == [
        f"Task run 'failing_last-{failing_last.short_hash}-0' of flow run 'mine' failed with this exception.",
        "2 other runs failed too.",
        "2 runs were not ready, because of runs that did not complete.",
    ]


def test_the_order_of_submission_decides_not_the_order_of_the_return_value(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        first, second = bad("first"), bad("second")
        return [second, first]

    with pytest.raises(ValueError, match="(?m)^first$"):
        my_flow()


def test_one_other_and_one_not_ready_are_told_in_the_singular(task_runner):
    @flow(task_runner=task_runner, flow_run_name="mine")
    def my_flow():
        good(bad("first"))
        bad("second")

    with pytest.raises(ValueError, match="(?m)^first$") as caught:
        my_flow()
    assert caught.value.__notes__ == [
        f"Task run 'bad-{bad.short_hash}-0' of flow run 'mine' failed with this exception.",
        "1 other run failed too.",
        "1 run was not ready, because of runs that did not complete.",
    ]


def test_one_exception_object_raised_by_two_runs_is_told_of_once(task_runner):
    error = ValueError("the same")

    @task
    def raising():
        raise error

    @flow(task_runner=task_runner, flow_run_name="mine")
    def my_flow():
        raising()
        raising()

    with pytest.raises(ValueError, match="(?m)^the same$"):
        my_flow()
    name = f"raising-{raising.short_hash}-0"
    assert error.__notes__[0] == f"Task run '{name}' of flow run 'mine' failed with this exception."


def test_an_exception_class_that_refuses_notes_is_raised_all_the_same(task_runner):
    class Stubborn(Exception):
        def add_note(self, note):
            raise TypeError("no notes")

    @task
    def raising():
        raise Stubborn("text")

    @flow(task_runner=task_runner)
    def my_flow():
        raising()

    with pytest.raises(Stubborn, match="(?m)^text$"):
        my_flow()


def test_the_traceback_leads_to_the_users_code(task_runner):
    import traceback

    @flow(task_runner=task_runner)
    def my_flow():
        bad()

    with pytest.raises(ValueError, match="text") as caught:
        my_flow()
    assert "raise ValueError(text)" in "".join(traceback.format_exception(caught.value))


def test_raising_not_ready_out_of_a_flow_keeps_the_root_failure_as_its_cause(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        return good(bad()).result()

    with pytest.raises(NotReadyError) as caught:
        my_flow()
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_interrupt_goes_on_to_the_caller(task_runner):
    @flow(task_runner=task_runner)
    def my_flow():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        my_flow()
    with pytest.raises(KeyboardInterrupt):
        my_flow(return_state=True)
