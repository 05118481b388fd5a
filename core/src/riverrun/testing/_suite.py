"""What the parts of the suite share: declarations, fixtures, the time limit."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, NoReturn

import pytest

from riverrun.abc import Concurrency
from riverrun.testing._patience import limit_of

if TYPE_CHECKING:
    from riverrun.abc import TaskRunner


class Suite:
    """The base of every part of the suite."""

    time_limit: ClassVar[float] = 60.0
    workers: ClassVar[int] = 2
    replaces_lost_workers: ClassVar[bool | None] = None
    survives_lost_workers: ClassVar[bool | None] = None
    workers_are_threads: ClassVar[bool] = False

    @property
    def patience(self) -> float:
        """How long a check waits for one thing: so long that it can still say in words that it did not come."""
        return limit_of(type(self)) / 2

    @pytest.fixture
    def task_runner(self) -> TaskRunner:
        """Give the runner that is tested; a subclass overrides this."""
        pytest.fail(f"{type(self).__name__} needs a fixture `task_runner` that returns the task runner to be tested.")

    @pytest.fixture
    def unstartable_task_runner(self) -> TaskRunner | None:
        """Give a runner whose start fails, if there is a way to have one; a subclass overrides this."""
        return None


def declares(suite: Suite, task_runner: TaskRunner, capability: str) -> bool:
    """Say whether a runner declares a capability, or the suite says it of this one with its options."""
    said: bool | None = getattr(suite, capability)
    declared: bool = getattr(task_runner, capability)
    return declared if said is None else said


def crosses_processes(task_runner: TaskRunner) -> bool:
    """Say whether the runner declares that its calls run in other processes."""
    return task_runner.concurrency is Concurrency.PARALLEL


def is_sequential(task_runner: TaskRunner) -> bool:
    """Say whether the runner declares that it runs one task after the other."""
    return task_runner.concurrency is Concurrency.SEQUENTIAL


def leave_out(reason: str) -> NoReturn:
    """Skip an obligation that this runner does not have."""
    pytest.skip(f"no obligation of this runner: {reason}")
