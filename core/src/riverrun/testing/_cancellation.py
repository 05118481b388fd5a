"""Cancelling runs that have not started, that are running, and that have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riverrun import CancelledError, flow
from riverrun import _conformance_jobs as _jobs
from riverrun.testing._asynchrony import on_both_libraries, run_on
from riverrun.testing._patience import DID_NOT_START, expect_async, limited
from riverrun.testing._suite import Suite, is_sequential, leave_out

if TYPE_CHECKING:
    from pathlib import Path

    from riverrun.abc import TaskRunner


@limited
class Cancellation(Suite):
    """`future.cancel()` says whether it could, and what was cancelled never runs."""

    def test_a_run_that_waits_for_its_upstream_can_be_cancelled(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        if is_sequential(task_runner):
            leave_out("in a sync flow of a sequential runner nothing waits")
        started, release, mark = tmp_path / "started", tmp_path / "release", tmp_path / "mark"
        names: list[str] = []

        @flow(task_runner=task_runner)
        def changing_its_mind() -> str:
            upstream = _jobs.hold(started, release)
            future = _jobs.note(mark, "ran", wait_for=[upstream])
            assert future.cancel(), "a run that has not started can be cancelled"
            dependent = _jobs.same(future)
            release.touch()
            names.extend([future.state.name, dependent.wait().name])  # type: ignore[union-attr]
            with pytest.raises(CancelledError):
                future.result()
            return str(upstream.result())

        assert changing_its_mind() == "released"
        assert names == ["Cancelled", "NotReady"], "what needs a cancelled run is not ready"
        assert not mark.exists(), "what was cancelled before it started never runs"

    def test_a_run_that_waits_for_a_worker_can_be_cancelled(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        if is_sequential(task_runner):
            leave_out("nothing waits for a worker of a sequential runner")
        folder, release, mark = tmp_path / "held", tmp_path / "release", tmp_path / "mark"
        folder.mkdir()

        @flow(task_runner=task_runner)
        def changing_its_mind() -> bool:
            for number in range(100):  # more than there are workers, for most runners
                _jobs.hold(folder / str(number), release)
            future = _jobs.note(mark, "ran")
            cancelled = future.cancel()
            release.touch()
            future.wait()
            return cancelled

        cancelled = changing_its_mind()
        assert mark.exists() is not cancelled, "a run that was cancelled never runs; one that was not, does"

    def test_a_run_that_has_ended_cannot_be_cancelled(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def too_late() -> tuple[bool, object]:
            future = _jobs.add(1, 2)
            future.wait()
            return future.cancel(), future.result()

        assert too_late() == (False, 3), "a final state stays"

    @on_both_libraries
    def test_a_run_of_an_async_flow_can_be_cancelled_before_it_starts(
        self, task_runner: TaskRunner, library: str, tmp_path: Path
    ) -> None:
        mark = tmp_path / "mark"

        @flow(task_runner=task_runner)
        async def changing_its_mind() -> str:
            upstream = _jobs.add_async(1, 2)
            future = _jobs.note(mark, "ran", wait_for=[upstream])
            assert future.cancel(), "a run that has not started can be cancelled"
            await upstream
            return future.state.name

        assert run_on(library, changing_its_mind) == "Cancelled"
        assert not mark.exists(), "what was cancelled before it started never runs"

    @on_both_libraries
    def test_an_async_task_can_be_cancelled_while_it_runs_on_the_loop_of_its_flow(
        self, task_runner: TaskRunner, library: str, tmp_path: Path
    ) -> None:
        started = tmp_path / "started"

        @flow(task_runner=task_runner)
        async def changing_its_mind() -> str:
            future = _jobs.hold_async(started)
            await expect_async(started.exists, DID_NOT_START, self.patience)
            assert future.cancel(), "a coroutine on the loop of its flow can be cancelled"
            with pytest.raises(CancelledError):
                await future
            return future.state.name

        if task_runner.concurrency.name == "PARALLEL":
            leave_out("it may not be able to reach a task that runs in another process")
        assert run_on(library, changing_its_mind) == "Cancelled"
