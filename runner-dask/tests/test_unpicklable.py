"""What cannot travel to or from a worker: that run fails, the text names it, and its neighbours complete."""

from __future__ import annotations

import threading

import pytest
from riverrun import flow, task
from riverrun.exceptions import RemoteTaskError, TaskSerializationError
from riverrun.task_runners import DaskTaskRunner

LIMIT = 100


class Seen:
    """What a flow returns to its test: nobody looks for futures and states in here."""

    def __init__(self, *things):
        self.things = things

    def __iter__(self):
        return iter(self.things)


@pytest.fixture
def with_neighbours(shared_dask_cluster):
    """Run one task between others; give its future and state, when the others have completed."""

    @task
    def plus_one(number):
        return number + 1

    def with_neighbours(make):
        @flow(task_runner=DaskTaskRunner(address=shared_dask_cluster.address))
        def among_others():
            before = [plus_one(number) for number in range(5)]
            future = make()
            dependent = plus_one(future)
            after = [plus_one(number) for number in range(5)]
            assert [each.result(LIMIT) for each in [*before, *after]] == [1, 2, 3, 4, 5] * 2
            return Seen(future, future.wait(LIMIT), dependent.wait(LIMIT))

        return among_others()

    return with_neighbours


def test_an_argument_that_cannot_be_pickled(with_neighbours):
    @task
    def takes(number, lock):
        return number

    future, state, dependent = with_neighbours(lambda: takes(1, lock=threading.Lock()))
    assert state.name == "Failed"
    assert dependent.name == "NotReady"
    with pytest.raises(TaskSerializationError) as caught:
        state.result()
    text = str(caught.value)
    assert future.name in text
    assert "'lock'" in text
    assert "lock" in text.replace("'lock'", "")  # its type: _thread.lock
    assert "_thread.lock" in text


def test_a_result_that_cannot_be_pickled(with_neighbours):
    @task
    def gives():
        return {"text": "x", "lock": threading.Lock()}

    future, state, dependent = with_neighbours(gives)
    assert state.name == "Failed"
    assert dependent.name == "NotReady"
    with pytest.raises(TaskSerializationError) as caught:
        state.result()
    assert future.name in str(caught.value)
    assert "dict" in str(caught.value)
    assert "_thread.lock" in str(caught.value)


def test_a_large_result_that_cannot_be_pickled(with_neighbours):
    @task
    def gives():
        return {"text": "x" * 200_000, "lock": threading.Lock()}

    future, state, dependent = with_neighbours(gives)
    assert state.name == "Failed"
    assert dependent.name == "NotReady"
    text = f"Task run '{future.name}': its result (of type builtins.dict) cannot be pickled to leave its worker: "
    with pytest.raises(TaskSerializationError) as caught:
        state.result()
    assert str(caught.value).startswith(text)
    assert "_thread.lock" in str(caught.value)


def test_an_exception_that_cannot_be_pickled(with_neighbours):
    class HasLock(Exception):
        def __init__(self, text):
            super().__init__(text)
            self.lock = threading.Lock()

    @task
    def raises():
        raise HasLock("it is locked")

    _, state, dependent = with_neighbours(raises)
    assert state.name == "Failed"
    assert dependent.name == "NotReady"
    with pytest.raises(RemoteTaskError) as caught:
        state.result()
    assert "in raises" in "".join(caught.value.__notes__)  # the traceback of the worker, to the line of the task
    assert "HasLock" in str(caught.value)
    assert "it is locked" in str(caught.value)


def test_an_exception_whose_init_takes_two_arguments(with_neighbours):
    class Two(Exception):
        def __init__(self, code, text):
            super().__init__(f"{code}: {text}")
            self.code = code

    @task
    def raises():
        raise Two(404, "not found")

    _, state, dependent = with_neighbours(raises)
    assert state.name == "Failed"
    assert dependent.name == "NotReady"
    with pytest.raises(Exception, match="404: not found") as caught:
        state.result()
    assert "Two" in repr(caught.value)
    if isinstance(caught.value, RemoteTaskError):  # it could not be made again here: then the text has all of it
        assert "in raises" in "".join(caught.value.__notes__)
