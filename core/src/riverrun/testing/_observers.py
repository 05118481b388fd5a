"""What observers are told of runs on the runner, and what they put around the functions of tasks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from riverrun import _conformance_jobs as _jobs
from riverrun import flow, hookimpl, observers
from riverrun.testing._patience import limited
from riverrun.testing._suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from riverrun.abc import TaskRunner


class _Watch:
    """Keeps the states of each task run, and puts a flavour around each attempt."""

    def __init__(self) -> None:
        self.states: dict[str, list[str]] = {}

    @hookimpl
    def riverrun_task_run_state_changed(self, event: observers.TaskRunStateChanged) -> None:
        self.states.setdefault(event.task_run_id, []).append(event.state.name)

    @hookimpl
    def riverrun_around_task_run(self, event: observers.TaskRunAttempt) -> Callable[[], AbstractContextManager[None]]:
        return functools.partial(_jobs.flavoured, f"{event.task_name} {event.attempt}")


@limited
class Observers(Suite):
    """Observers learn the same on every runner."""

    def test_observers_are_told_the_states_of_each_run_in_order(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def sums() -> None:
            _jobs.add(_jobs.add(1, 2), 3).wait()
            _jobs.add(_jobs.fail("no"), 3).wait()

        watch = _Watch()
        with observers.register(watch):
            sums(return_state=True)
        completed = ["Pending", "Running", "Completed"]
        expected = [completed, completed, ["Pending", "Running", "Failed"], ["Pending", "NotReady"]]
        assert sorted(watch.states.values()) == sorted(expected), "a run's states are told from Pending to the last one"

    def test_what_an_observer_puts_around_a_task_is_around_its_function(self, task_runner: TaskRunner) -> None:
        @flow(task_runner=task_runner)
        def tastes() -> list[str]:
            return [_jobs.taste().result(), _jobs.taste_async().result(), _jobs.add("plain", "").result()]

        with observers.register(_Watch()):
            assert tastes() == ["taste 1", "taste_async 1", "plain"], "it is entered where the function is called"
        assert _jobs.flavour.get() == "none", "it is left again"
