"""What cannot travel to or from a worker: that run fails, the text names it, and its neighbours complete."""

from __future__ import annotations

import threading

import pytest
from riverrun import flow, task
from riverrun.exceptions import RemoteTaskError, TaskSerializationError
from riverrun.task_runners import RayTaskRunner

LIMIT = 120


class Seen:
    """What a flow returns to its test: nobody looks for futures and states in here."""

    def __init__(self, *things):
        self.things = things

    def __iter__(self):
        return iter(self.things)


@pytest.fixture
def with_neighbours(held_session):
    """Run one task between others; give its future and state, when the others have completed."""

    @task
    def plus_one(number):
        return number + 1

    def run(make):
        @flow(task_runner=RayTaskRunner(address=held_session.address))
        def among_others():
            before = [plus_one(number) for number in range(5)]
            future = make()
            dependent = plus_one(future)
            after = [plus_one(number) for number in range(5)]
            assert [each.result(LIMIT) for each in [*before, *after]] == [1, 2, 3, 4, 5] * 2
            return Seen(future, future.wait(LIMIT), dependent.wait(LIMIT))

        future, state, dependent = among_others()
        assert state.name == "Failed"
        assert dependent.name == "NotReady"
        return future, state

    return run


def test_an_argument(with_neighbours):
    @task
    def takes(number, lock):
        return number

    future, state = with_neighbours(lambda: takes(1, lock=threading.Lock()))
    with pytest.raises(TaskSerializationError) as caught:
        state.result()
    assert f"Task run '{future.name}': argument 'lock' (of type _thread.lock) cannot be pickled" in str(caught.value)


@pytest.mark.parametrize("size", [1, 200_000], ids=["small", "large"])
def test_a_result(with_neighbours, size):
    @task
    def gives():
        return {"text": "x" * size, "lock": threading.Lock()}

    future, state = with_neighbours(gives)
    with pytest.raises(TaskSerializationError) as caught:
        state.result()
    assert f"Task run '{future.name}': its result (of type builtins.dict) cannot be pickled to " in str(caught.value)
    assert "_thread.lock" in str(caught.value)


def test_an_exception(with_neighbours):
    class HasLock(Exception):
        def __init__(self, text):
            super().__init__(text)
            self.lock = threading.Lock()

    @task
    def raises():
        raise HasLock("it is locked")

    _, state = with_neighbours(raises)
    with pytest.raises(RemoteTaskError) as caught:
        state.result()
    assert "in raises" in "".join(caught.value.__notes__)
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

    _, state = with_neighbours(raises)
    with pytest.raises(Exception, match="404: not found"):
        state.result()


def test_a_value_that_cannot_be_rebuilt_where_it_is_taken(with_neighbours):
    def broken():
        raise ValueError("it cannot be made again")

    class Fragile:
        def __reduce__(self):
            return broken, ()

    @task
    def gives():
        return [Fragile(), "x" * 100_000]

    @task
    def takes(value):
        return value

    future, state = with_neighbours(lambda: takes(gives()))
    with pytest.raises(TaskSerializationError) as caught:
        state.result()
    text = f"Task run '{future.name}': the task or its arguments cannot be rebuilt on worker "
    assert str(caught.value).startswith(text)
    assert "it cannot be made again" in str(caught.value)


def test_exceptions_keep_their_class_and_show_the_users_code_first(with_neighbours):
    @task
    def raises():
        raise KeyError("missing")

    _, state = with_neighbours(raises)
    error = state.exception()
    assert type(error) is KeyError
    note = "".join(error.__notes__)
    assert note.startswith("On worker ")
    first = next(line for line in note.splitlines() if line.strip().startswith("File "))
    assert f'File "{__file__}"' in first
    assert "RayTaskError" not in repr(error) + note
