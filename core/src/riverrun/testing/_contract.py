"""The runner object: configuration only, immutable, comparable, picklable."""

from __future__ import annotations

import copy
import pickle

import pytest

from riverrun import _conformance_jobs as _jobs
from riverrun import flow
from riverrun.abc import API_VERSION, Concurrency, TaskRunner
from riverrun.testing._patience import limited
from riverrun.testing._suite import Suite


@limited
class Contract(Suite):
    """What is asked of the object itself, before and after it has run anything."""

    def test_the_runner_is_a_task_runner_of_this_version_that_says_its_concurrency(
        self, task_runner: TaskRunner
    ) -> None:
        assert isinstance(task_runner, TaskRunner), "a task runner is a subclass of riverrun.abc.TaskRunner"
        assert isinstance(task_runner.concurrency, Concurrency), "a task runner says its `concurrency`"
        assert task_runner.api_version == API_VERSION, f"a task runner says `api_version = {API_VERSION}`"

    def test_the_runner_equals_its_copies(self, task_runner: TaskRunner) -> None:
        for copied in (copy.copy(task_runner), copy.deepcopy(task_runner), task_runner.with_options()):
            assert copied == task_runner, "a runner is compared by the values of its options: a copy is equal"
            assert hash(copied) == hash(task_runner), "runners that are equal have the same hash"

    def test_the_runner_can_be_pickled(self, task_runner: TaskRunner) -> None:
        again = pickle.loads(pickle.dumps(task_runner))  # noqa: S301 - made on the same line
        assert again == task_runner, "a runner can be pickled, and comes back equal"

    def test_the_runner_is_immutable(self, task_runner: TaskRunner) -> None:
        for name in [*_attributes(task_runner), "an_attribute_of_no_runner"]:
            with pytest.raises(AttributeError):
                setattr(task_runner, name, None)

    def test_a_flow_run_leaves_the_runner_as_it_was(self, task_runner: TaskRunner) -> None:
        before, attributes = copy.deepcopy(task_runner), _attributes(task_runner)

        @flow(task_runner=task_runner)
        def three() -> object:
            return _jobs.add(1, 2)

        assert three() == 3
        assert task_runner == before, "a flow run changes no option of its runner"
        assert _attributes(task_runner) == attributes, "what a runner starts belongs to the flow run, not to the runner"


def _attributes(task_runner: TaskRunner) -> list[str]:
    return sorted(getattr(task_runner, "__dict__", {}))
