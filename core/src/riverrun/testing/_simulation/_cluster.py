"""The simulated `RemoteTaskExecutor`: workers that keep values, and die.

A call is waiting (for its upstreams), queued (on a worker), running, done. It may end otherwise: failed, withdrawn,
lost, or dropped: when an upstream ended without a value, and nobody need be told.
"""

from __future__ import annotations

import pickle
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from riverrun.exceptions import WorkerLost
from riverrun.testing._simulation._bodies import executing
from riverrun.testing._simulation._plan import Attempt, pause, travelled
from riverrun.testing._simulation._world import Line

if TYPE_CHECKING:
    from collections.abc import Callable

    from riverrun.abc import TaskCall, TaskReport
    from riverrun.testing._simulation._plan import Faults, Journal, Plan
    from riverrun.testing._simulation._world import World

MOST: Final = 200
"""Values whose pickle is larger than this, in bytes, stay on the workers."""


@dataclass(eq=False)
class Handle:
    """A call on the cluster, and its value."""

    attempt: Attempt
    call: Any = None
    report: Any = None
    upstreams: tuple[Handle, ...] = ()
    state: str = "waiting"
    worker: int = -1
    value: Any = None
    has_value: bool = False
    tellings: deque[Callable[[], object]] = field(default_factory=deque)
    telling: bool = False


class SimulatedCluster:
    """A `RemoteTaskExecutor` in a simulated world."""

    def __init__(self, world: World, plan: Plan, journal: Journal, faults: Faults) -> None:
        self.world = world
        self.plan = plan
        self.journal = journal
        self.faults = faults
        self.max_worker_losses = plan.max_worker_losses
        if plan.exact:
            self.cancel_is_exact = True
        self._handles: list[Handle] = []
        self._reporter = Line(world, "reporter")
        self._next_worker = plan.workers
        self._workers = list(range(plan.workers))
        self._closed = False

    # -- the contract

    def send(self, call: TaskCall, report: TaskReport, /) -> Handle:
        """Take a call."""
        pause(self.world, self.plan, "send: before")
        if self.faults.happens(self.plan.refusal):
            self.journal.count(self.journal.refusals, call.name)
            self.world.note(f"refuses {call.name}")
            raise RuntimeError(f"{call.name} is refused")
        attempt = Attempt(call.name, call.key)
        handle = Handle(attempt, travelled(call), report, tuple(call.upstreams))
        self.journal.add(attempt)
        self._handles.append(handle)
        self.world.note(f"takes {attempt.label} ({len(handle.upstreams)} upstreams)")
        self._look_at(handle)
        pause(self.world, self.plan, "send: after")
        return handle

    def fetch(self, handle: Handle, /) -> Any:
        """Give a value."""
        pause(self.world, self.plan, "fetch: before")
        self._maybe_lose(handle, self.plan.fetch_loss)
        there = handle.has_value
        value = pickle.loads(pickle.dumps(handle.value)) if there else None  # noqa: S301 - our own
        self.world.note(f"fetch {handle.attempt.label}: {there}")
        pause(self.world, self.plan, "fetch: after")
        if not there:
            raise WorkerLost(f"the value of {handle.attempt.name} is gone")
        return value

    def holds(self, handle: Handle, /) -> bool:
        """Say whether a value is there, or on its way."""
        pause(self.world, self.plan, "holds: before")
        there = handle.has_value or handle.state in {"waiting", "queued", "running"}
        pause(self.world, self.plan, "holds: after")
        return there

    def put(self, value: Any, /) -> Handle:
        """Take a value."""
        pause(self.world, self.plan, "put: before")
        copy = pickle.loads(pickle.dumps(value))  # noqa: S301
        handle = Handle(Attempt("put", "put"), state="done", value=copy, has_value=True, worker=self._any_worker())
        self._handles.append(handle)
        pause(self.world, self.plan, "put: after")
        return handle

    def cancel(self, handle: Handle, /) -> bool:
        """Withdraw a call."""
        pause(self.world, self.plan, "cancel: before")
        possible = handle.state in {"waiting", "queued", "dropped"}
        if possible and not self.plan.exact and self.world.chance(0.3):
            possible = False
        if possible:
            handle.state = "withdrawn"
            self._cut_off(handle)
        self.world.note(f"cancel {handle.attempt.label}: {possible}")
        pause(self.world, self.plan, "cancel: after")
        return possible

    # -- faults, also for tests that want them at a certain moment

    def lose_worker(self, of: str | None = None) -> None:
        """Let a worker die: any, or that of a task run."""
        known = [handle.worker for handle in self._handles if handle.attempt.name == of]
        self._lose_worker(known[-1] if known and known[-1] in self._workers else self._any_worker())

    def _lose_worker(self, lost: int) -> None:
        """Let a worker die, with all that it runs, is to run and keeps; another one takes its place."""
        self._workers[self._workers.index(lost)] = self._next_worker
        self._next_worker += 1
        self.world.note(f"worker {lost} dies")
        mine = [handle for handle in self._handles if handle.worker == lost]
        self.world.random.shuffle(mine)
        for handle in mine:
            self._lose(handle)

    def lose_value(self, handle: Handle) -> None:
        """Let a value be lost, as if its worker had died."""
        if handle.has_value:
            self._lose(handle)

    def lose_value_of(self, name: str) -> None:
        """Let the value of a task run be lost."""
        for handle in self._handles:
            if handle.attempt.name == name:
                self.lose_value(handle)

    def _lose(self, handle: Handle) -> None:
        begun = handle.state == "running"
        if begun or handle.state == "queued":
            handle.state = "lost"
            handle.attempt.killed = begun
            counts = self.journal.losses if begun else self.journal.losses_before
            self.journal.count(counts, handle.attempt.name)
            self._tell_lost(handle, begun=begun)
        elif handle.has_value:
            handle.has_value, handle.value = False, None
            self.journal.count(self.journal.losses, handle.attempt.name)
            self.world.note(f"value of {handle.attempt.label} is lost")
        else:
            return
        self._cut_off(handle, always_told=handle.state == "done")

    def _cut_off(self, handle: Handle, *, always_told: bool = False) -> None:
        """Deal with calls that were to take a value which will not be there."""
        for other in self._handles:
            if handle in other.upstreams and other.state in {"waiting", "queued"}:
                told = always_told or self.plan.tells
                other.state = "lost" if told else "dropped"
                self.world.note(f"{other.attempt.label} is {other.state}")
                if told:
                    self.journal.count(self.journal.losses_before, other.attempt.name)
                    self._tell_lost(other, begun=False)
                self._cut_off(other)

    # -- calls on their way

    def _any_worker(self) -> int:
        return int(self.world.random.choice(self._workers))

    def _look_at(self, handle: Handle) -> None:
        """Queue a call whose upstreams have their values; drop one for which they never will be there."""
        if handle.state != "waiting":
            return
        for upstream in handle.upstreams:
            if upstream.has_value:
                continue
            if upstream.state not in {"waiting", "queued", "running"}:
                if upstream.state == "done" or self.plan.tells:
                    handle.state = "lost"
                    self.journal.count(self.journal.losses_before, handle.attempt.name)
                    self._tell_lost(handle, begun=False)
                else:
                    handle.state = "dropped"
                self._cut_off(handle)
            return
        handle.state = "queued"
        handle.worker = self._any_worker()
        delay = self.world.random.choice([0.01, 0.5, 3.0]) if self.world.chance(self.plan.slow) else 0.0
        execute = lambda: self._execute(handle)  # noqa: E731
        if delay:
            self.world.later(delay, execute, f"worker {handle.worker}")
        else:
            self.world.soon(execute, f"worker {handle.worker}")

    def _execute(self, handle: Handle) -> None:
        if handle.state != "queued" or self._closed:
            return
        if self.faults.happens(self.plan.loss / 2):  # it dies before this call has begun
            self._die(handle)
            return
        handle.state = "running"
        handle.attempt.begun = self.world.now
        self._check_alone(handle.attempt)
        self.world.note(f"{handle.attempt.label} begins")
        dies = self.faults.happens(self.plan.loss / 2)
        if self.world.chance(0.5):
            self._tell(handle, lambda: handle.report.begun(self.world.now))
        if dies and self.world.chance(0.5):
            self.world.soon(lambda: self._die(handle), "death")
        values = [upstream.value for upstream in handle.upstreams]
        self.world.reached("body: before")
        with executing(handle.attempt):
            outcome, value = handle.call.run_keeping(values, MOST)
        self.world.reached("body: after")
        if dies:
            self._die(handle)
        if handle.state != "running" or self._closed:
            return  # who ran it is dead
        handle.attempt.ended = self.world.now
        self._done(handle, pickle.loads(pickle.dumps(outcome)), value)  # noqa: S301

    def _done(self, handle: Handle, outcome: Any, value: Any) -> None:
        failed = outcome.error is not None or outcome.void
        handle.state = "failed" if failed else "done"
        handle.has_value, handle.value = not failed, value
        self.world.note(f"{handle.attempt.label} is {handle.state}")
        self._tell(handle, lambda: handle.report.ended(pickle.loads(pickle.dumps(outcome)), handle))  # noqa: S301
        if failed:
            self._cut_off(handle)
        for other in list(self._handles):
            if handle in other.upstreams:
                self._look_at(other)
        self._maybe_lose(handle, self.plan.value_loss)

    def _die(self, handle: Handle) -> None:
        if handle.state not in {"queued", "running"}:
            return
        if self.world.chance(self.plan.whole):
            self._lose_worker(handle.worker)
        else:
            self._lose(handle)

    def _maybe_lose(self, handle: Handle, probability: float) -> None:
        if handle.has_value and self.faults.happens(probability):
            if handle.worker in self._workers and self.world.chance(self.plan.whole):
                self._lose_worker(handle.worker)
            else:
                self.lose_value(handle)

    def _check_alone(self, attempt: Attempt) -> None:
        others = [one for one in self.journal.attempts[attempt.name] if one is not attempt and not one.is_over]
        others = [one for one in others if one.run == attempt.run]
        if others:
            self.world.violate(f"overlap: {attempt.label} begins while {others[0].label} is running")

    # -- telling

    def _tell_lost(self, handle: Handle, *, begun: bool) -> None:
        error = WorkerLost(f"{handle.attempt.name} is lost")
        self._tell(handle, lambda: handle.report.lost(error, begun=begun))

    def _tell(self, handle: Handle, telling: Callable[[], object]) -> None:
        """Tell something about a call: after what was told of it before; of others, in any order."""
        if self._closed:
            return
        self._put(handle, telling)
        if self.faults.happens(self.plan.twice):
            self.world.later(self.world.random.choice([0.0, 1.0]), lambda: self._put(handle, telling), "reporter")

    def _put(self, handle: Handle, telling: Callable[[], object]) -> None:
        if self.plan.reporters == "one":
            self._reporter.put(lambda: self._say(handle, telling))
            return
        handle.tellings.append(telling)
        if not handle.telling:
            handle.telling = True
            self.world.soon(lambda: self._say_all(handle), "reporter")

    def _say_all(self, handle: Handle) -> None:
        while handle.tellings:
            self._say(handle, handle.tellings.popleft())
        handle.telling = False

    def _say(self, handle: Handle, telling: Callable[[], object]) -> None:
        if self._closed:
            return
        self.world.note(f"tells of {handle.attempt.label} ({handle.state})")
        handle.attempt.told = True
        try:
            telling()
        except Exception as error:  # noqa: BLE001
            self.world.violate(f"a report about {handle.attempt.label} raised {error!r}")

    def close(self) -> None:
        """Stop."""
        self._closed = True
