"""Attempts: retries, delays, time limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from riverrun import RunTimeout, Task, flow
from riverrun import _conformance_jobs as _jobs
from riverrun._timers import replaced
from riverrun.testing._asynchrony import on_both_libraries, run_on
from riverrun.testing._fake_clock import PassingClock
from riverrun.testing._patience import expect, limited
from riverrun.testing._suite import Suite, is_sequential, leave_out

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from riverrun.abc import TaskRunner

SHORT = 0.2
"""A time limit, in seconds, for what does not end by itself."""
DELAYS = {"at_once": 0.0, "after_a_delay": 0.05}
KINDS: dict[str, Task[..., Any]] = {"sync": _jobs.attempt, "async": _jobs.attempt_async}


def releasing(release: Path) -> Callable[..., object]:
    """Make a hook that ends what still runs: Python cannot stop a thread, but a task that is given up may be told."""

    def hook(*_: object) -> None:
        release.touch()

    return hook


BETWEEN = "the time limit of an attempt that is over says nothing about the delay before the next one"


@limited
class RetriesAndTimeouts(Suite):
    """A run that fails may be tried again; one that takes too long is over."""

    @pytest.mark.parametrize("delay", DELAYS)
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_task_that_fails_is_tried_again(
        self, task_runner: TaskRunner, tmp_path: Path, kind: str, delay: str
    ) -> None:
        @flow(task_runner=task_runner)
        def patient() -> tuple[int, int]:
            future = KINDS[kind].with_options(retries=3, retry_delay_seconds=DELAYS[delay])(tmp_path, 2)
            return future.result(), future.task_run.run_count

        assert patient() == (3, 3), "a run that fails is tried again until it succeeds"

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_task_that_fails_too_often_fails_with_its_last_exception(
        self, task_runner: TaskRunner, tmp_path: Path, kind: str
    ) -> None:
        @flow(task_runner=task_runner)
        def patient() -> object:
            return KINDS[kind].with_options(retries=2)(tmp_path, 5).result()

        with pytest.raises(ConnectionError, match="attempt 3"):
            patient()
        assert len(list(tmp_path.iterdir())) == 3, "retries=2 means three attempts, and no more"

    @on_both_libraries
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_task_that_fails_in_an_async_flow_is_tried_again(
        self, task_runner: TaskRunner, tmp_path: Path, kind: str, library: str
    ) -> None:
        @flow(task_runner=task_runner)
        async def patient() -> object:
            return await KINDS[kind].with_options(retries=3, retry_delay_seconds=0.01)(tmp_path, 2)

        assert run_on(library, patient) == 3, "a run that fails is tried again until it succeeds"

    def test_a_retry_delay_holds_no_worker(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        if is_sequential(task_runner):
            leave_out("a sequential runner tries again before the call returns")
        marks = tmp_path / "marks"
        marks.mkdir()

        @flow(task_runner=task_runner)
        def delayed() -> int:
            retried = [_jobs.fail.with_options(retries=1, retry_delay_seconds=3600)() for _ in range(20)]
            expect(
                lambda: all(future.state.name == "AwaitingRetry" for future in retried),
                f"runs that failed and are to be tried again are in state AwaitingRetry: {retried}",
                self.patience,
            )
            others = [_jobs.leave_a_mark(marks, str(number)) for number in range(20)]
            for future in others:
                future.result()
            return sum(future.cancel() for future in retried)

        assert delayed() == 20, "runs that wait for a retry can be cancelled"

    def test_a_sync_task_that_overruns_its_time_limit_is_timed_out(
        self, task_runner: TaskRunner, tmp_path: Path
    ) -> None:
        started, release = tmp_path / "started", tmp_path / "release"
        hold = _jobs.hold.with_options(timeout_seconds=SHORT, on_failure=[releasing(release)])
        names: list[str] = []

        @flow(task_runner=task_runner)
        def impatient() -> None:
            future = hold(started, release)
            with pytest.raises(RunTimeout):
                future.result()
            names.append(future.state.name)

        with pytest.raises(RunTimeout, match=f"exceeded timeout of {SHORT} seconds"):
            impatient()
        assert names == ["TimedOut"], "a run that takes longer than its timeout_seconds ends at once, as TimedOut"

    def test_an_async_task_that_overruns_its_time_limit_is_timed_out(
        self, task_runner: TaskRunner, tmp_path: Path
    ) -> None:
        hold = _jobs.hold_async.with_options(timeout_seconds=SHORT)

        @flow(task_runner=task_runner)
        def impatient() -> str:
            state = hold(tmp_path / "started").wait()
            return state.name if state is not None else "none"

        assert impatient() == "TimedOut"

    @on_both_libraries
    def test_an_async_task_that_overruns_its_time_limit_in_an_async_flow_is_timed_out(
        self, task_runner: TaskRunner, tmp_path: Path, library: str
    ) -> None:
        hold = _jobs.hold_async.with_options(timeout_seconds=SHORT)

        @flow(task_runner=task_runner)
        async def impatient() -> object:
            return await hold(tmp_path / "started")

        with pytest.raises(RunTimeout, match=f"exceeded timeout of {SHORT} seconds"):
            run_on(library, impatient)

    def test_a_task_within_its_time_limit_completes(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def patient() -> list[object]:
            limited_in_time = [task.with_options(timeout_seconds=600) for task in (_jobs.add, _jobs.add_async)]
            return [add(1, 2).result() for add in limited_in_time]

        assert patient() == [3, 3]

    def test_waiting_for_a_worker_does_not_count_towards_the_time_limit(
        self, task_runner: TaskRunner, tmp_path: Path
    ) -> None:
        if is_sequential(task_runner):
            leave_out("nothing waits for a worker of a sequential runner")
        release, held, marks = tmp_path / "release", tmp_path / "held", tmp_path / "marks"
        held.mkdir()
        marks.mkdir()

        @flow(task_runner=task_runner)
        def busy() -> list[object]:
            holding = [_jobs.hold(held / str(number), release) for number in range(self.workers)]
            expect(
                lambda: len(list(held.iterdir())) >= self.workers,
                f"{self.workers} sync tasks did not start, though the runner has so many workers",
                self.patience,
                else_make=release,
            )
            queued = _jobs.leave_a_mark.with_options(timeout_seconds=2 * SHORT)(marks, "ran")
            queued.wait(4 * SHORT)  # longer than its limit: where there is no free worker, it has not begun
            over = queued.done() and not any(marks.iterdir())
            release.touch()
            queued.wait()  # how long it takes itself, on a machine that is busy, is another matter
            return [over, *[future.result() for future in holding]]

        assert busy() == [False, *["released"] * self.workers], "a time limit counts from the start of the attempt"
        assert any(marks.iterdir()), "what has waited for a worker longer than its time limit runs all the same"

    def test_a_task_that_is_timed_out_may_be_tried_again(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        hold = _jobs.hold_async.with_options(timeout_seconds=SHORT, retries=1)

        @flow(task_runner=task_runner)
        def impatient() -> tuple[str, int]:
            future = hold(tmp_path / "started")
            future.wait()
            return future.state.name, future.task_run.run_count

        assert impatient() == ("TimedOut", 2), "a time limit is for one attempt, and a retry is another"

    @pytest.mark.parametrize("kind", KINDS)
    def test_the_delay_before_the_next_attempt_may_be_longer_than_the_time_limit(
        self, task_runner: TaskRunner, tmp_path: Path, kind: str
    ) -> None:
        marks = tmp_path / "marks"
        marks.mkdir()
        patient = KINDS[kind].with_options(timeout_seconds=SHORT, retries=1, retry_delay_seconds=3600)
        overrunning = _jobs.hold_async.with_options(timeout_seconds=SHORT)

        @flow(task_runner=task_runner)
        def waiting() -> tuple[str, bool, int]:
            future = patient(marks, 5)
            expect(lambda: future.state.name == "AwaitingRetry", "it was not tried again", self.patience)
            # The time limit of one that begins later is over: so would be the first one's, if it still counted.
            overrunning(tmp_path / "started").wait()
            return future.state.name, future.cancel(), future.task_run.run_count

        if is_sequential(task_runner):
            self._test_a_delay_in_the_thread_of_the_flow(task_runner, KINDS[kind], marks)
            return
        assert waiting() == ("AwaitingRetry", True, 1), BETWEEN

    def _test_a_delay_in_the_thread_of_the_flow(
        self, task_runner: TaskRunner, job: Task[..., Any], marks: Path
    ) -> None:
        patient = job.with_options(timeout_seconds=600, retries=2, retry_delay_seconds=1200)

        @flow(task_runner=task_runner)
        def waiting() -> tuple[str, int]:
            future = patient(marks, 5)
            return future.state.name, future.task_run.run_count

        with replaced(PassingClock()):  # a sequential runner waits in the call itself: for two times twenty minutes
            assert waiting() == ("Failed", 3), BETWEEN

    def test_a_flow_that_overruns_its_time_limit_is_timed_out(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        started, release = tmp_path / "started", tmp_path / "release"
        hold = _jobs.hold.with_options(on_failure=[releasing(release)])

        @flow(task_runner=task_runner, timeout_seconds=4 * SHORT)
        def impatient() -> object:
            return hold(started, release).result()

        state = impatient(return_state=True)
        assert state.name == "TimedOut", "a flow that takes longer than its timeout_seconds is TimedOut"

    def test_a_timeout_error_of_the_task_itself_is_a_failure_like_others(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def failing() -> str:
            future = _jobs.raise_timeout_error.with_options(timeout_seconds=600)()
            future.wait()
            return future.state.name

        assert failing() == "Failed", "only the run's own time limit makes it TimedOut"
