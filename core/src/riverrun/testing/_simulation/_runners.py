"""Task runners whose executors are in the present world."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from riverrun.abc import Concurrency, TaskRunner
from riverrun.testing._simulation._cluster import SimulatedCluster
from riverrun.testing._simulation._plan import Faults, Journal
from riverrun.testing._simulation._pool import SimulatedPool
from riverrun.testing._simulation._world import here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun.testing._simulation._plan import Plan
    from riverrun.testing._simulation._world import World


class Simulated:
    """What the runners of a world share: its plan, its journal, and the executors that were made."""

    def __init__(self, world: World, plan: Plan) -> None:
        self.world = world
        self.plan = plan
        self.journal = Journal()
        self.faults = Faults(world, plan)
        self.executors: list[Any] = []

    def executor(self) -> Any:
        """Make an executor."""
        kind = SimulatedCluster if self.plan.contract == "remote" else SimulatedPool
        made = kind(self.world, self.plan, self.journal, self.faults)
        self.executors.append(made)
        return made

    def runner(self) -> TaskRunner:
        """Give a task runner whose executors are in this world."""
        return InThreads() if self.plan.contract == "threads" else InProcesses()


class _SimulatedRunner(TaskRunner):
    api_version: ClassVar[int] = 1

    @contextmanager
    def start(self) -> Iterator[Any]:
        """Give an executor of the present world."""
        executor = here().simulated.executor()
        try:
            yield executor
        finally:
            executor.close()


class InProcesses(_SimulatedRunner):
    """A runner whose calls travel."""

    concurrency = Concurrency.PARALLEL


class InThreads(_SimulatedRunner):
    """A runner whose calls share this process."""

    concurrency = Concurrency.CONCURRENT
