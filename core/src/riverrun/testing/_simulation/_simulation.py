"""Simulations for flows of one's own: what tests of flows, and authors of task runners, use."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from riverrun.testing._simulation._plan import Plan
from riverrun.testing._simulation._runners import Simulated
from riverrun.testing._simulation._world import Violation, World, end_idle_threads, here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from riverrun import TaskFuture
    from riverrun.abc import TaskRunner


class Simulation:
    """A simulated world, for flows of one's own: no process, no real thread at a time but one, no real time.

    Attributes:
        seed: decides all that happens: the same seed, the same order.
    """

    def __init__(self, world: World, seed: int, shared: Simulated) -> None:
        self.seed = seed
        self._world = world
        self._shared = shared

    @property
    def task_runner(self) -> TaskRunner:
        """A task runner in this world: `my_flow.with_options(task_runner=simulation.task_runner)()`."""
        return self._shared.runner()

    @property
    def history(self) -> list[str]:
        """What happened last, one line each."""
        return list(self._world.history)

    def __reduce__(self) -> Any:
        """Travel to simulated workers, which are in this process: tasks may have it as an argument."""
        return _present, ()

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass; in a task or in the flow it stands for what would take so long there."""
        self._world.sleep(seconds)

    def lose_worker(self, of: TaskFuture[Any] | None = None) -> None:
        """Let a worker die, with all that it runs and keeps; another one takes its place.

        Args:
            of: the one that runs, or keeps, this task run; by default any.
        """
        self._shared.executors[-1].lose_worker(None if of is None else of.name)

    def lose_value(self, future: TaskFuture[Any]) -> None:
        """Let the value of a task run be lost, as if the worker that keeps it had died."""
        self._shared.executors[-1].lose_value_of(future.name)

    def executed(self, future: TaskFuture[Any]) -> int:
        """Say how many attempts at a task run have really begun."""
        return self._shared.journal.executed(future.name)

    def stop_faults(self) -> None:
        """Let no more of the faults happen that the seed decides."""
        self._shared.faults.stop()


def _present() -> Simulation:
    simulation = here().simulation
    assert isinstance(simulation, Simulation), "it travels within its own world only"
    return simulation


@contextmanager
def simulated(seed: int = 0, *, contract: str = "remote", **options: Any) -> Iterator[Simulation]:
    """Be in a simulated world: flows run on `simulation.task_runner`, in the order that the seed decides.

    Args:
        seed: decides all that happens.
        contract: which kind of executor: `remote`, `submit` (processes) or `threads`.
        **options: how likely what is: `loss=0.2`, `value_loss=0.1`, `faults=10` (how many there are at most),
            `max_worker_losses=2`, `workers=3`, `slow=0.5` and others.

    Raises:
        TypeError: an option does not exist.
        ValueError: the value of one is not possible.
        AssertionError: something happened that must not: a hang, two attempts at a time, a thread that raised.

    Example:
        >>> from riverrun import flow, task
        >>> from riverrun.testing import simulated
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> @flow
        ... def doubles():
        ...     return double(double(1)).result()
        >>> with simulated(seed=3) as simulation:
        ...     doubles.with_options(task_runner=simulation.task_runner)()
        4
    """
    if options.keys() - (known := {field.name for field in dataclasses.fields(Plan)}):
        msg = f"simulated() has no option {sorted(options.keys() - known)}; there are {sorted(known)}"
        raise TypeError(msg)
    plan = Plan(contract=contract, **options)
    plan.check()
    world = World(seed)
    world.simulated = Simulated(world, plan)
    try:
        with world.entered():
            world.simulation = Simulation(world, seed, world.simulated)
            yield world.simulation
    except Violation:
        pass
    finally:
        end_idle_threads()
    if world.violations:
        lines = "\n".join([*world.violations, "", "what happened last:", *list(world.history)[-30:]])
        raise AssertionError(f"seed {seed}: {lines}")
