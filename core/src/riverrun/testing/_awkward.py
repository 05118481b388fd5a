"""Objects that do not travel well: the failure of one run, and never of its neighbours."""

from __future__ import annotations

import threading
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from riverrun import RemoteTaskError, Task, TaskSerializationError, flow, task
from riverrun import _conformance_jobs as _jobs
from riverrun.testing._patience import limited
from riverrun.testing._suite import Suite, crosses_processes, leave_out

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun import State
    from riverrun.abc import TaskRunner


class TwoArguments(Exception):
    """An exception that cannot be unpickled: `args` holds one text, and `__init__` wants two."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"{code}: {reason}")


class WithALock(Exception):
    """An exception that cannot be pickled."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class WithoutText(Exception):
    """An exception whose text cannot be made."""

    def __str__(self) -> str:
        msg = "no text for you"
        raise RuntimeError(msg)


class NotToBeRebuilt:
    """An object that can be pickled and cannot be unpickled."""

    def __reduce__(self) -> tuple[Callable[[], NoReturn], tuple[()]]:
        return _cannot_rebuild, ()


def _cannot_rebuild() -> NoReturn:
    msg = "it cannot be rebuilt"
    raise OSError(msg)


@task
def raise_two_arguments() -> Any:
    """Raise it."""
    raise TwoArguments(7, "disk full")


@task
def raise_with_a_lock() -> Any:
    """Raise it."""
    msg = "disk full"
    raise WithALock(msg)


@task
def raise_local_class() -> Any:
    """Raise an exception whose class nobody can import."""

    class Local(Exception):
        pass

    msg = "disk full"
    raise Local(msg)


@task
def raise_from_another() -> Any:
    """Raise an exception that has a cause."""
    msg = "not saved"
    raise LookupError(msg) from OSError("disk full")


@task
def raise_without_text() -> Any:
    """Raise it."""
    raise WithoutText


@task
def leave_python() -> Any:
    """Raise `SystemExit`, as a script's main() does."""
    raise SystemExit(3)


@task
def make_a_lock() -> Any:
    """Return what cannot be pickled."""
    return threading.Lock()


@task
def make_what_cannot_be_rebuilt() -> Any:
    """Return what cannot be unpickled."""
    return NotToBeRebuilt()


RAISERS: dict[str, tuple[Task[[], Any], str]] = {
    "an_init_with_two_arguments": (raise_two_arguments, "TwoArguments: 7: disk full"),
    "an_attribute_that_cannot_be_pickled": (raise_with_a_lock, "WithALock: disk full"),
    "a_class_that_cannot_be_imported": (raise_local_class, "Local: disk full"),
    "a_cause": (raise_from_another, "OSError: disk full"),
    "no_text": (raise_without_text, "WithoutText"),
}


def _outcome(task_runner: TaskRunner, awkward: Task[..., Any], *args: object) -> tuple[State, BaseException]:
    """Run a task between two good ones; give its final state and its exception."""
    outcomes: list[tuple[State, BaseException]] = []

    @flow(task_runner=task_runner)
    def neighbours() -> object:
        first = _jobs.add(1, 2)
        future = awkward(*args)
        last = _jobs.add(first, 4)
        future.wait()
        outcomes.append((future.state, future.result(raise_on_failure=False)))
        return last.result()

    assert neighbours() == 7, "one run that fails harms no other"
    return outcomes[0]


@limited
class AwkwardObjects(Suite):
    """What user code raises, takes and returns is not always made for travelling."""

    @pytest.mark.parametrize("what", RAISERS)
    def test_a_task_may_raise_an_exception_with(self, task_runner: TaskRunner, what: str) -> None:
        raiser, text = RAISERS[what]
        state, error = _outcome(task_runner, raiser)
        assert state.is_failed(), f"a task that raises is Failed, whatever it raises, not {state!r}"
        shown = "".join(traceback.format_exception(error))
        assert text in shown, "the exception, or what stands for it, tells its class and its text"
        assert f"in {raiser.name}" in shown, "the exception, or what stands for it, tells the line that raised"

    def test_a_task_that_exits_python_fails_alone(self, task_runner: TaskRunner) -> None:
        state, _ = _outcome(task_runner, leave_python)
        assert not state.is_completed(), "SystemExit in a task ends that task, and not a worker or the flow"

    def test_what_cannot_be_pickled_stays_itself_in_one_process(self, task_runner: TaskRunner) -> None:
        if crosses_processes(task_runner):
            leave_out("its tasks run in other processes")
        lock = threading.Lock()

        @flow(task_runner=task_runner)
        def passing() -> bool:
            return _jobs.same(_jobs.same(lock)).result() is lock and make_a_lock().result() is not None

        assert passing(), "in one process nothing is copied or pickled"

    @pytest.mark.parametrize("value", [threading.Lock(), NotToBeRebuilt()], ids=["cannot_be_pickled", "be_unpickled"])
    def test_an_argument_that_cannot_travel_fails_its_own_run(self, task_runner: TaskRunner, value: object) -> None:
        if not crosses_processes(task_runner):
            leave_out("its tasks run in the process of the flow")
        state, error = _outcome(task_runner, _jobs.same, value)
        assert state.is_failed(), "an argument that cannot travel is the failure of that run"
        assert isinstance(error, TaskSerializationError), "... with an exception that says so"

    @pytest.mark.parametrize("maker", [make_a_lock, make_what_cannot_be_rebuilt], ids=lambda maker: str(maker.name))
    def test_a_result_that_cannot_travel_fails_its_own_run(self, task_runner: TaskRunner, maker: Task[[], Any]) -> None:
        if not crosses_processes(task_runner):
            leave_out("its tasks run in the process of the flow")
        state, error = _outcome(task_runner, maker)
        assert state.is_failed(), "a result that cannot travel is the failure of that run"
        assert isinstance(error, (TaskSerializationError, RemoteTaskError)), "... with an exception that says so"

    def test_hooks_stay_in_the_process_of_the_flow(self, task_runner: TaskRunner) -> None:
        called: list[str] = []
        lock = threading.Lock()

        def hook(_task: object, _run: object, state: State) -> None:
            with lock:  # which cannot be pickled, as most of what hooks use: clients, files, loggers
                called.append(state.name)

        @flow(task_runner=task_runner)
        def hooked() -> None:
            _jobs.add.with_options(on_completion=[hook])(1, 2).wait()
            _jobs.fail.with_options(on_failure=[hook])().wait()

        hooked(return_state=True)
        assert called == ["Completed", "Failed"], "hooks run in the process of the flow, and never travel"
