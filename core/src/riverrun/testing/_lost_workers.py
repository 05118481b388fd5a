"""Workers that die: the run is lost, the flow is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from riverrun import WorkerLost, flow
from riverrun import _conformance_jobs as _jobs
from riverrun.testing._patience import DID_NOT_START, expect, limited
from riverrun.testing._suite import Suite, crosses_processes, declares, leave_out

if TYPE_CHECKING:
    from pathlib import Path

    from riverrun import State
    from riverrun.abc import TaskRunner


@limited
class LostWorkers(Suite):
    """For runners in other processes; a thread does not die alone."""

    def test_a_run_that_is_lost_with_its_worker_is_crashed(self, task_runner: TaskRunner) -> None:
        if self.workers_are_threads or not crosses_processes(task_runner):
            leave_out("its tasks run in the process of the flow")
        states: list[State] = []

        @flow(task_runner=task_runner)
        def deadly() -> None:
            lost = _jobs.die()
            dependent = _jobs.same(lost)
            states.extend([lost.wait(), dependent.wait()])  # type: ignore[list-item]
            with pytest.raises(WorkerLost):
                lost.result()

        flow_state = deadly(return_state=True)
        assert [state.name for state in states] == ["Crashed", "NotReady"], "a run that lost its worker is Crashed"
        assert flow_state.is_failed(), "a flow whose runs crashed has failed"

    def test_no_run_hangs_when_a_worker_dies(self, task_runner: TaskRunner) -> None:
        if self.workers_are_threads or not crosses_processes(task_runner):
            leave_out("its tasks run in the process of the flow")
        states: list[State] = []

        @flow(task_runner=task_runner)
        def deadly() -> None:
            before = [_jobs.add(number, 1) for number in range(10)]
            lost = _jobs.die()
            after = [_jobs.add(number, 1) for number in range(10)]
            states.extend(future.wait() for future in [*before, lost, *after])  # type: ignore[misc]

        deadly(return_state=True)
        assert {state.name for state in states} <= {"Completed", "Crashed"}, "each run completes, or is Crashed"
        assert states[10].is_crashed()

    def test_another_flow_run_has_workers_again(self, task_runner: TaskRunner) -> None:
        if self.workers_are_threads or not crosses_processes(task_runner):
            leave_out("its tasks run in the process of the flow")

        @flow(task_runner=task_runner)
        def deadly() -> None:
            _jobs.die()

        @flow(task_runner=task_runner)
        def good() -> object:
            return _jobs.add(1, 2)

        assert deadly(return_state=True).is_failed()
        assert good() == 3, "a worker that died is a matter of its own flow run"

    def test_a_flow_run_whose_worker_died_has_workers_again(self, task_runner: TaskRunner) -> None:
        if self.workers_are_threads or not crosses_processes(task_runner):
            leave_out("its tasks run in the process of the flow")
        if not declares(self, task_runner, "replaces_lost_workers"):
            leave_out("it does not declare `replaces_lost_workers`")

        @flow(task_runner=task_runner)
        def deadly() -> list[object]:
            for _ in range(self.workers):  # so that none is left of those that were there
                state = _jobs.die().wait()
                assert state is not None
                assert state.is_crashed()
            return [_jobs.add(number, 1).result() for number in range(10)]

        assert deadly() == [number + 1 for number in range(10)], (
            "with `replaces_lost_workers`, what is called after a worker died finds another one"
        )

    def test_runs_on_other_workers_survive_a_worker_that_dies(self, task_runner: TaskRunner, tmp_path: Path) -> None:
        if self.workers_are_threads or not crosses_processes(task_runner):
            leave_out("its tasks run in the process of the flow")
        if not declares(self, task_runner, "survives_lost_workers"):
            leave_out("it does not declare `survives_lost_workers`")
        started, release = tmp_path / "started", tmp_path / "release"

        @flow(task_runner=task_runner)
        def deadly() -> tuple[object, object, str]:
            held = _jobs.hold(started, release)
            expect(started.exists, DID_NOT_START, self.patience, else_make=release)
            lost, other = _jobs.die(), _jobs.add(1, 2)
            state = lost.wait()
            release.touch()
            return held.result(), other.result(), state.name if state is not None else "none"

        assert deadly() == ("released", 3, "Crashed"), "with `survives_lost_workers`, one worker takes one run with it"
