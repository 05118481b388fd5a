"""The simulated `TaskExecutor`: it gives futures, as `concurrent.futures` does."""

from __future__ import annotations

from concurrent.futures import BrokenExecutor, Future
from typing import TYPE_CHECKING, Any

from riverrun.testing._simulation._bodies import executing
from riverrun.testing._simulation._plan import Attempt, pause, travelled
from riverrun.testing._simulation._world import Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.abc import TaskCall
    from riverrun.testing._simulation._plan import Faults, Journal, Plan
    from riverrun.testing._simulation._world import World


class SimulatedPool:
    """A `TaskExecutor`: it gives futures, of an executor of processes or of threads."""

    def __init__(self, world: World, plan: Plan, journal: Journal, faults: Faults) -> None:
        self.world = world
        self.plan = plan
        self.journal = journal
        self.faults = faults
        self.max_worker_losses = 0
        self._reporter = Line(world, "reporter")
        self._running: list[tuple[Attempt, Future[Any]]] = []
        self._closed = False

    def submit(self, call: TaskCall, /) -> Future[Any]:
        """Take a call."""
        pause(self.world, self.plan, "submit: before")
        if self.faults.happens(self.plan.refusal):
            self.journal.count(self.journal.refusals, call.name)
            raise RuntimeError(f"{call.name} is refused")
        attempt = Attempt(call.name, call.key)
        self.journal.add(attempt)
        work = travelled(call) if self.plan.contract == "submit" else call
        future: Future[Any] = Future()
        execute = lambda: self._execute(attempt, work, future)  # noqa: E731
        if self.world.chance(self.plan.slow):
            self.world.later(self.world.random.choice([0.01, 0.5, 3.0]), execute, "worker")
        else:
            self.world.soon(execute, "worker")
        self.world.reached("submit: after")  # no time passes here: the future is not known yet, and a limit may count
        return future

    def lose_worker(self, of: str | None = None) -> None:
        """Let a worker die with what it runs: any, or that of a task run."""
        running = [one for one in self._running if of in {None, one[0].name}]
        if running:
            self._lose(*self.world.random.choice(running))

    def _lose(self, attempt: Attempt, future: Future[Any]) -> None:
        if attempt.killed or attempt.ended is not None or future.done():
            return
        attempt.killed = True
        self.journal.count(self.journal.losses, attempt.name)
        self._end(lambda: future.set_exception(BrokenExecutor(f"{attempt.name} is lost")))

    def _execute(self, attempt: Attempt, call: Any, future: Future[Any]) -> None:
        if self._closed:
            return
        if not future.running() and not future.set_running_or_notify_cancel():
            self.world.note(f"{attempt.label} was cancelled")
            return
        if self.plan.contract == "submit" and self.faults.happens(self.plan.loss / 2):
            self._lose(attempt, future)
            return
        attempt.begun = self.world.now
        self.world.note(f"{attempt.label} begins")
        self._running.append((attempt, future))
        if self.plan.contract == "submit" and self.faults.happens(self.plan.loss / 2):
            self.world.soon(lambda: self._lose(attempt, future), "death")
        self.world.reached("body: before")
        with executing(attempt):
            outcome = call()
        self.world.reached("body: after")
        self._running.remove((attempt, future))
        if attempt.killed:
            return
        attempt.ended = self.world.now
        self.world.note(f"{attempt.label} ends")
        self._end(lambda: future.set_result(outcome))

    def _end(self, telling: Callable[[], object]) -> None:
        if self._closed:
            return
        if self.plan.reporters == "one":
            self._reporter.put(telling)
        else:
            self.world.soon(telling, "reporter")

    def close(self) -> None:
        """Stop."""
        self._closed = True
