"""Start and stop: once for each flow run, in every case, and nothing is left behind."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from riverrun import _conformance_jobs as _jobs
from riverrun import flow
from riverrun.abc import RemoteTaskExecutor, TaskRunner
from riverrun.exceptions import TaskRunnerStartError
from riverrun.testing._patience import limited
from riverrun.testing._suite import Suite, leave_out
from riverrun.testing._traces import Traces, expect_nothing_left_since

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from riverrun.abc import TaskExecutor


class _Unexpected(Exception):
    """An exception that only this test raises."""


ENDS: dict[str, type[BaseException] | None] = {
    "completes": None,
    "fails": ValueError,
    "is_interrupted": KeyboardInterrupt,
}


@limited
class LifeCycle(Suite):
    """When the runner starts, when it stops, and what is there afterwards."""

    @pytest.mark.parametrize("end", ENDS)
    def test_the_runner_starts_once_and_stops_once_for_a_flow_run_that(self, task_runner: TaskRunner, end: str) -> None:
        events: list[str] = []
        _run_to_its(end, _watched(task_runner, events))
        assert events == ["starts", "started", "stops", "stopped"], "a runner is started once and stopped once"

    def test_the_runner_stops_after_the_last_task_has_ended(self, task_runner: TaskRunner) -> None:
        events: list[str] = []

        @flow(task_runner=_watched(task_runner, events))
        def nobody_waits() -> None:
            for number in range(5):
                _jobs.add(number, 1).add_done_callback(lambda _: events.append("done"))

        nobody_waits()
        assert events == ["starts", "started", *["done"] * 5, "stops", "stopped"], "every task ends before the runner"

    def test_the_runner_can_be_started_again_after_it_was_stopped(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def three() -> object:
            return _jobs.add(1, 2)

        assert [three(), three()] == [3, 3], "one runner object serves one flow run after the other"

    def test_a_flow_run_without_tasks_starts_and_stops_the_runner(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def idle() -> str:
            return "nothing to do"

        assert idle() == "nothing to do"

    def test_leaving_the_start_context_by_an_exception_lets_it_through(self, task_runner: TaskRunner) -> None:
        def leave() -> None:
            with task_runner.start() as executor:
                takes = callable(getattr(executor, "submit", None)) or isinstance(executor, RemoteTaskExecutor)
                assert takes, "what start() yields has the method submit(), or those of a RemoteTaskExecutor"
                raise _Unexpected

        with pytest.raises(_Unexpected):
            leave()

    def test_a_runner_that_does_not_start_fails_the_flow_run_before_its_body(
        self, unstartable_task_runner: TaskRunner | None
    ) -> None:
        if unstartable_task_runner is None:
            leave_out("it has no fixture `unstartable_task_runner`")
        before = Traces.now()

        @flow(task_runner=unstartable_task_runner)
        def never() -> None:
            pytest.fail("the body of a flow does not run if its runner did not start")

        with pytest.raises(TaskRunnerStartError):
            never()
        expect_nothing_left_since(before, self.patience / 2, "what a failed start has begun, it stops")

    def test_what_was_started_is_stopped_if_the_start_fails_at_its_end(self, task_runner: TaskRunner) -> None:
        events: list[str] = []

        @flow(task_runner=_watched(task_runner, events, fail=True))
        def never() -> None:
            pytest.fail("the body of a flow does not run if its runner did not start")

        with pytest.raises(TaskRunnerStartError, match="no licence"):
            never()
        assert events == ["starts", "started", "stopped"], "what a start has begun is stopped if the start fails later"

    @pytest.mark.parametrize("end", ENDS)
    def test_no_thread_no_process_and_no_listening_socket_is_left_by_a_flow_run_that(
        self, task_runner: TaskRunner, end: str
    ) -> None:
        _run_to_its(end, task_runner)  # what a library starts once, for the whole process, is there from now on
        before = Traces.now()
        for _ in range(2):
            _run_to_its(end, task_runner)
        expect_nothing_left_since(before, self.patience / 2, "what a flow run starts ends with it")

    def test_no_thread_no_process_and_no_listening_socket_is_left_by_an_async_flow_run(
        self, task_runner: TaskRunner
    ) -> None:
        @flow(task_runner=task_runner)
        async def both() -> list[object]:
            return [_jobs.add(1, 2), _jobs.add_async(3, 4)]

        assert anyio.run(both) == [3, 7]
        before = Traces.now()
        for _ in range(2):
            anyio.run(both)
        expect_nothing_left_since(before, self.patience / 2, "what a flow run starts ends with it")


def _run_to_its(end: str, task_runner: TaskRunner) -> None:
    """Run a flow with a sync and an async task to its end, which may be bad."""
    error = ENDS[end]

    @flow(task_runner=task_runner)
    def ends() -> list[Any]:
        results = [_jobs.add(1, 2).result(), _jobs.add_async(3, 4).result()]
        if error is not None:
            raise error(end)
        return results

    _expect(error, ends)


def _expect(error: type[BaseException] | None, function: Callable[[], object]) -> None:
    if error is None:
        assert function() == [3, 7]
        return
    with pytest.raises(error):
        function()


def _watched(inner: TaskRunner, events: list[str], *, fail: bool = False) -> TaskRunner:
    """Wrap a runner, so that its starts and stops are noted; `fail`: its start fails when all has been started."""

    class WatchedTaskRunner(TaskRunner):
        concurrency = inner.concurrency

        @contextmanager
        def start(self) -> Iterator[TaskExecutor | RemoteTaskExecutor]:
            events.append("starts")
            try:
                with inner.start() as executor:
                    events.append("started")
                    if fail:
                        raise _Unexpected("no licence")
                    try:
                        yield executor
                    finally:
                        events.append("stops")
            finally:
                events.append("stopped")

    return WatchedTaskRunner()
