"""Cancelling runs that have not started, that are running, and that have ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from riverrun import CancelledError, Task, flow
from riverrun import _conformance_jobs as _jobs
from riverrun.testing._asynchrony import on_both_libraries, run_on
from riverrun.testing._patience import DID_NOT_START, expect, expect_async, limited
from riverrun.testing._suite import Suite, is_sequential, leave_out

if TYPE_CHECKING:
    from pathlib import Path

    from riverrun.abc import TaskRunner


NOT_COUNTED = "an attempt is counted when it has begun: there is none of a run that was cancelled before that"
ATTEMPTS: dict[str, Task[..., Any]] = {"sync": _jobs.held_attempt, "async": _jobs.held_attempt_async}


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
        def changing_its_mind() -> tuple[bool, int]:
            for number in range(100):  # more than there are workers, for most runners
                _jobs.hold(folder / str(number), release)
            future = _jobs.note(mark, "ran")
            cancelled = future.cancel()
            release.touch()
            future.wait()
            return cancelled, future.task_run.run_count

        cancelled, count = changing_its_mind()
        assert mark.exists() is not cancelled, "a run that was cancelled never runs; one that was not, does"
        assert count == (0 if cancelled else 1), NOT_COUNTED

    def test_no_attempt_is_counted_of_a_run_that_was_cancelled_before_it_began(
        self, task_runner: TaskRunner, tmp_path: Path
    ) -> None:
        if is_sequential(task_runner):
            leave_out("in a sync flow of a sequential runner nothing waits")
        held, release, marks = tmp_path / "held", tmp_path / "release", tmp_path / "marks"
        held.mkdir()
        marks.mkdir()

        @flow(task_runner=task_runner)
        def changing_its_mind() -> tuple[list[bool], list[int]]:
            holding = [_jobs.hold(held / str(number), release) for number in range(2 * self.workers)]
            expect(lambda: any(held.iterdir()), DID_NOT_START, self.patience, else_make=release)
            futures = [
                _jobs.leave_a_mark(marks, "dependent", wait_for=holding),
                _jobs.leave_a_mark(marks, "sent", _jobs.same(holding[0])),
                *[_jobs.leave_a_mark(marks, "ready") for _ in range(10)],
            ]
            cancelled = [future.cancel() for future in futures]
            release.touch()
            for future in futures:
                future.wait()
            return cancelled, [future.task_run.run_count for future in futures]

        cancelled, counts = changing_its_mind()
        assert cancelled[0], "a run that waits for an upstream can be cancelled"
        assert counts == [0 if was else 1 for was in cancelled], NOT_COUNTED
        assert len(list(marks.iterdir())) == sum(counts), "what was cancelled before it began never runs"

    @pytest.mark.parametrize("kind", ATTEMPTS)
    def test_a_cancel_that_is_refused_changes_nothing(self, task_runner: TaskRunner, tmp_path: Path, kind: str) -> None:
        if is_sequential(task_runner):
            leave_out("in a sync flow of a sequential runner a call has ended when it returns")
        attempts, release = tmp_path / "attempts", tmp_path / "release"
        attempts.mkdir()

        @flow(task_runner=task_runner)
        def changing_its_mind() -> tuple[str, int, object]:
            future = ATTEMPTS[kind].with_options(retries=1)(attempts, release)
            expect(lambda: any(attempts.iterdir()), DID_NOT_START, self.patience, else_make=release)
            refused = [not future.cancel() for _ in range(3)]
            release.touch()
            state = future.wait()
            assert state is not None
            if not all(refused):
                assert state.name == "Cancelled", "a run that was stopped is Cancelled"
                leave_out("it can stop a task that runs")
            return state.name, future.task_run.run_count, future.result(raise_on_failure=False)

        assert changing_its_mind() == ("Completed", 2, 2), "a cancel() that says False takes a run none of its retries"

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
            assert future.task_run.run_count == 0, NOT_COUNTED
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
