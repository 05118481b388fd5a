"""Order and overlap, as the runner declares them."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from riverrun import _conformance_jobs as _jobs
from riverrun import flow
from riverrun.testing._patience import expect_all_met, limited
from riverrun.testing._suite import Suite, crosses_processes, is_sequential, leave_out

if TYPE_CHECKING:
    from pathlib import Path

    from riverrun.abc import TaskRunner


@limited
class Order(Suite):
    """A runner keeps what its `concurrency` promises."""

    def test_sequential_tasks_run_in_the_order_of_their_calls(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        if not is_sequential(task_runner):
            leave_out("it is not sequential")
        file = tmp_path / "order"

        @flow(task_runner=task_runner)
        def counting() -> None:
            for number in range(20):
                (_jobs.note_async if number % 3 else _jobs.note)(file, str(number))

        counting()
        assert file.read_text().split() == [str(number) for number in range(20)], (
            "sequential: in the order of the calls"
        )

    def test_a_sequential_task_has_ended_when_its_call_returns(self, task_runner: TaskRunner) -> None:
        if not is_sequential(task_runner):
            leave_out("it is not sequential")

        @flow(task_runner=task_runner)
        def stepping() -> tuple[bool, bool]:
            return _jobs.add(1, 2).done(), _jobs.add_async(1, 2).done()

        assert stepping() == (True, True), "sequential: each task runs to its end before its call returns"

    def test_a_sequential_task_runs_in_the_thread_of_its_flow(self, task_runner: TaskRunner) -> None:
        if not is_sequential(task_runner):
            leave_out("it is not sequential")

        @flow(task_runner=task_runner)
        def looking() -> list[tuple[int, int]]:
            return [_jobs.where().result(), _jobs.where_async().result()]

        assert looking() == [(os.getpid(), threading.get_ident())] * 2, "sequential: in the thread of the flow"

    def test_sync_tasks_overlap(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        if is_sequential(task_runner) or self.workers < 2:
            leave_out("it runs one sync task at a time")

        @flow(task_runner=task_runner)
        def meeting() -> Any:
            names = [str(number) for number in range(self.workers)]
            return [_jobs.meet(tmp_path, name, self.workers, self.patience) for name in names]

        expect_all_met(meeting(), f"{self.workers} sync tasks run at the same time")

    def test_async_tasks_overlap(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        if is_sequential(task_runner) or self.workers < 2:
            leave_out("it runs one task at a time")

        @flow(task_runner=task_runner)
        def meeting() -> Any:
            names = [str(number) for number in range(self.workers)]
            return [_jobs.meet_async(tmp_path, name, self.workers, self.patience) for name in names]

        expect_all_met(meeting(), f"{self.workers} async tasks run at the same time")

    def test_tasks_run_in_the_processes_that_the_runner_declares(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def looking() -> set[int]:
            return {_jobs.where().result()[0], _jobs.where_async().result()[0]}

        here = os.getpid() in looking()
        if self.workers_are_threads:
            assert here, "with `workers_are_threads`, tasks run in the process of the flow"
        elif crosses_processes(task_runner):
            assert not here, "Concurrency.PARALLEL: tasks run in other processes"
        else:
            assert here, "without Concurrency.PARALLEL tasks run in the process of the flow, and are not pickled"
