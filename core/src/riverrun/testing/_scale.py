"""Many tasks: each runs once, and no number of them in any arrangement gets stuck."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from riverrun import TaskFuture, as_completed, flow
from riverrun import _conformance_jobs as _jobs
from riverrun.testing._patience import limited
from riverrun.testing._suite import Suite, is_sequential, leave_out

if TYPE_CHECKING:
    from pathlib import Path

    from riverrun.abc import TaskRunner


@limited
class Scale(Suite):
    """Few workers carry many tasks."""

    def test_each_task_runs_exactly_once(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        @flow(task_runner=task_runner)
        def marking() -> None:
            for number in range(50):
                _jobs.leave_a_mark(tmp_path, str(number))

        state = marking(return_state=True)
        runs = Counter(mark.name.partition("-")[0] for mark in tmp_path.iterdir())
        assert runs == {str(number): 1 for number in range(50)}, "each call runs once: none is dropped, none runs twice"
        assert state.is_completed(), f"tasks that run to their end complete, but: {state}"

    def test_every_call_that_is_submitted_is_taken(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def many() -> list[str]:
            futures = [_jobs.add(number, 1) for number in range(100)]
            return [str(future.wait()) for future in futures if not future.wait().is_completed()]  # type: ignore[union-attr]

        assert many() == [], "submit() takes every call of a flow run; it does not raise"

    def test_a_thousand_tasks_complete(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def thousand() -> int:
            futures = [_jobs.add(number, 1) for number in range(1000)]
            return sum(future.result() for future in as_completed(futures))

        assert thousand() == 500_500, "a thousand tasks run, each gives its own value"

    def test_a_long_chain_does_not_get_stuck(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def chain() -> Any:
            future: TaskFuture[Any] = _jobs.add(0, 0)
            for _ in range(300):
                future = _jobs.add(future, 1)
            return future.result()

        assert chain() == 300, "a task takes a worker only when its upstreams are done"

    def test_a_wide_fan_does_not_get_stuck(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def fan() -> object:
            source = _jobs.add(0, 1)
            return _jobs.total([_jobs.add(source, number) for number in range(200)]).result()

        assert fan() == 20_100, "one task, two hundred that need it, one that needs them all"

    def test_dependents_that_are_submitted_before_a_slow_upstream_has_ended_hold_no_worker(
        self, task_runner: TaskRunner, tmp_path: Path
    ) -> None:
        if is_sequential(task_runner) or self.workers < 2:
            leave_out("it runs one sync task at a time")
        started, release = tmp_path / "started", tmp_path / "release"

        @flow(task_runner=task_runner)
        def slow() -> object:
            upstream = _jobs.hold(started, release)
            dependents = [_jobs.same(upstream) for _ in range(50)]
            _jobs.note(release, "now")  # needs the second worker
            return [future.result() for future in dependents]

        assert slow() == ["released"] * 50, "a task that waits for its upstreams holds no worker"

    def test_a_task_that_calls_a_task_gets_a_finished_future(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def nested() -> list[object]:
            futures = [_jobs.add_inside(1, 2), _jobs.add_async_inside(3, 4), _jobs.map_inside([1, 2])]
            return [future.result() for future in futures]

        assert nested() == [(True, 3), (True, 7), [2, 3]], "a task called inside a task runs in place"

    def test_the_failure_of_a_task_inside_a_task_is_that_tasks(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def nested() -> str:
            state = _jobs.fail_inside("inside").wait()
            assert state is not None
            return str(state.message)

        assert nested() == "Task run encountered an exception: ValueError: inside"

    def test_tasks_that_call_tasks_do_not_get_stuck_however_many_they_are(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def nested() -> list[tuple[bool, int]]:
            return _jobs.add_inside.map(range(100), 1).result()

        assert nested() == [(True, number + 1) for number in range(100)], "a task inside a task needs no second worker"
