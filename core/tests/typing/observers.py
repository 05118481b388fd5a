"""What type checkers know of observers and test fixtures. Nothing here runs: mypy and pyright read it."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, assert_type

from riverrun import State, hookimpl, observers
from riverrun.observers import Failure, FlowRunFinished, FlowRunStarted, LogRecord, Registration, TaskRunStateChanged

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from riverrun.observers import TaskRunAttempt
    from riverrun.testing import FakeClock


class Observer:
    """A class with some of the hooks."""

    @hookimpl
    def riverrun_flow_run_started(self, event: FlowRunStarted) -> None:
        assert_type(event.flow_run_id, str)
        assert_type(event.parent_flow_run_id, str | None)
        assert_type(event.time, float)

    @hookimpl
    def riverrun_flow_run_finished(self, event: FlowRunFinished) -> None:
        assert_type(event.state, State)
        assert_type(event.failure, Failure | None)

    @hookimpl
    def riverrun_task_run_state_changed(self, event: TaskRunStateChanged) -> None:
        assert_type(event.state.is_final(), bool)
        assert_type(event.attempt, int)
        assert_type(event.tags, frozenset[str])
        event.attempt = 3  # type: ignore[misc]

    @hookimpl
    def riverrun_log_record(self, event: LogRecord) -> None:
        assert_type(event.level, int)
        assert_type(event.task_run_name, str | None)

    @hookimpl
    def riverrun_around_task_run(self, event: TaskRunAttempt) -> Callable[[], AbstractContextManager[None]]:
        assert_type(event.task_run_id, str)
        return nullcontext


def an_observer_is_registered_and_taken_back() -> None:
    registration = observers.register(Observer())
    assert_type(registration, Registration)
    assert_type(registration.unregister(), None)
    with observers.register(Observer) as also:
        assert_type(also, Registration)
    observers.register("progress").unregister()


def test_of_a_flow(flow_runner: str, fake_clock: FakeClock) -> None:
    fake_clock.advance(60)
    assert_type(fake_clock.delays, list[float])
    fake_clock.advance("60")  # type: ignore[arg-type]
    print(flow_runner)
